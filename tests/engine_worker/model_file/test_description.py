"""What a client may be shown of a header, however large and odd the header is."""

from pathlib import Path

import msgspec
import pytest

from engine_worker.model_file.description import (
    MAX_ELEMENTS,
    MAX_KEYS,
    MAX_TEXT_CHARS,
    described,
)
from engine_worker.model_file.gguf_header import GgufHeader, read_header
from engine_worker.model_file.gguf_reader import Value
from gpufc.facts import Metadata


def header(metadata: dict[str, Value]) -> GgufHeader:
    return GgufHeader(
        metadata=metadata,
        n_tensors=1,
        tensor_bytes={},
        header_bytes=0,
        files=(),
    )


SHOWN: dict[str, Value] = {
    "general.architecture": "llama",
    "general.file_type": 3,
    "llama.rope.freq_base": 100000.0,
    "llama.heads": (1,) * MAX_ELEMENTS,
    "tokenizer.ggml.add_bos_token": False,
    "general.name": "x" * MAX_TEXT_CHARS,
}


def test_short_values_are_shown_as_they_stand() -> None:
    assert described(header(SHOWN)) == SHOWN


@pytest.mark.parametrize(
    "value",
    [
        "x" * (MAX_TEXT_CHARS + 1),
        (1,) * (MAX_ELEMENTS + 1),
        float("nan"),
        float("inf"),
        (1.0, float("nan")),
    ],
)
def test_a_value_that_is_long_or_no_number_of_json_is_left_out(value: Value) -> None:
    assert described(header(SHOWN | {"more": value})) == SHOWN


def test_the_chat_template_and_its_variants_are_left_out() -> None:
    templates: dict[str, Value] = {
        "tokenizer.chat_template": "{{ x }}",
        "tokenizer.chat_template.tool_use": "{{ y }}",
    }
    assert described(header(SHOWN | templates)) == SHOWN


def test_the_number_of_entries_is_bounded() -> None:
    many: dict[str, Value] = {f"key.{number}": number for number in range(MAX_KEYS * 2)}
    assert list(described(header(many))) == list(many)[:MAX_KEYS]


@pytest.mark.model
def test_a_real_header_survives_the_link(model_path: Path) -> None:
    found = described(read_header(model_path))
    assert found["general.architecture"] == "llama"
    assert found["llama.context_length"] == 8192
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Metadata) == found
