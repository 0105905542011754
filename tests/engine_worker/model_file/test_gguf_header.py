import os
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine_worker.model_file.gguf_header import read_header
from gpufc.errors import ModelLoadError
from tests.engine_worker.model_file.gguf_files import array, gguf, pair, tensor, text, u32

ARCH = pair("general.architecture", 8, text("llama"))
WEIGHT = tensor("w", (64, 2), 8, 0)  # Q8_0: 4 blocks of 34 bytes
GOOD = gguf(
    [
        ARCH,
        pair("llama.block_count", 4, u32(30)),
        pair("tokens", 9, array(8, 2, text("a") + text("bc"))),
        pair("kv", 9, array(4, 2, u32(3) + u32(4))),
    ],
    [WEIGHT],
    b"\1" * 136,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def refusal(path: Path, content: bytes | None = None) -> str:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelLoadError) as caught:
        read_header(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message or path.stem.split("-")[0] in message
    return message


def test_a_good_header_is_read(path: Path) -> None:
    path.write_bytes(GOOD)
    header = read_header(path)
    assert header.architecture == "llama"
    assert header.number("llama.block_count") == 30
    assert list(header.per_layer("kv", 2, 0)) == [3, 4]
    assert (header.file_bytes, header.n_tensors) == (len(GOOD), 1)
    assert header.header_bytes == len(GOOD) - 136
    assert "tokens" not in header.metadata


def test_files_that_cannot_be_read_are_told_apart(path: Path) -> None:
    assert "does not exist" in refusal(path)
    assert "not a regular file" in refusal(path.parent)
    os.mkfifo(path)
    assert "not a regular file" in refusal(path)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"", "0 bytes"),
        (b"hello world, this is no model at all", "does not begin with GGUF"),
        (struct.pack("<Q", 99) + b'{"__metadata__":{"format":"pt"}}', "safetensors"),
        (b"PK\3\4" + b"\0" * 60, "PyTorch"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (gguf([ARCH], [], version=1), "version 1, which is not read any more; get a newer"),
        (gguf([ARCH], [], version=4), "newer than this llama.cpp knows; update llama-cpp-python"),
        (gguf([ARCH], [], version=0x12345678), "damaged: it claims GGUF version 305,419,896"),
        (gguf([ARCH], [], version=0x03000000), "byte order"),
    ],
)
def test_other_formats_get_a_hint(path: Path, content: bytes, hint: str) -> None:
    assert hint in refusal(path, content)


def test_a_truncated_file_says_so(path: Path) -> None:
    said = refusal(path, GOOD[:-1])
    assert "truncated" in said
    assert f"{len(GOOD) - 1} bytes" in said
    said = refusal(path, GOOD[:100])
    assert "damaged" in said
    assert said.endswith("; download it again")


def test_byte_counts_can_be_read(path: Path) -> None:
    large = gguf([ARCH], [tensor("w", (4_000_000,), 0, 0)])
    assert "need 16,000,128 bytes (15.3 MiB); download it again" in refusal(path, large)


@pytest.mark.parametrize(
    "content",
    [
        gguf([ARCH], [], n_tensors=1 << 60),
        gguf([ARCH], [], n_pairs=1 << 60),
        gguf([pair("k", 8, struct.pack("<Q", 1 << 62))], []),
        gguf([struct.pack("<Q", 1 << 63)], [], n_pairs=1),
        gguf([pair("k", 9, array(8, 1 << 61, b""))], []),
        gguf([pair("k", 9, array(10, 1 << 61, b""))], []),
        gguf([pair("k", 9, array(9, 1, array(9, 1, b"")))], []),
        gguf([pair("k", 99, b"")], []),
        gguf([ARCH], [tensor("w", (1 << 63, 1 << 63, 1 << 63), 0, 0)]),
        gguf([ARCH], [tensor("w", (1,), 0, (1 << 64) - 1)]),
        gguf([ARCH], [text("w") + struct.pack("<I", 1 << 31)]),
        gguf([ARCH, pair("general.alignment", 4, u32(0))], [WEIGHT], b"\0" * 200),
        gguf([ARCH, pair("general.alignment", 8, text("x"))], [WEIGHT], b"\0" * 200),
    ],
)
@pytest.mark.timeout(60)
def test_hostile_headers_are_refused_at_once(path: Path, content: bytes) -> None:
    refusal(path, content)


def test_a_vocabulary_of_empty_strings_is_bounded(path: Path) -> None:
    path.write_bytes(gguf([pair("k", 9, array(8, 9 << 20, b""))], []))
    os.truncate(path, 100 << 20)  # sparse: zero lengths without end
    assert "an array of" in refusal(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_anywhere_is_accepted_or_refused_but_never_raises(
    path: Path, data: st.DataObject
) -> None:
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(ModelLoadError):
        read_header(path)


def part(number: int, count: int) -> bytes:
    return gguf(
        [
            ARCH,
            pair("split.no", 2, struct.pack("<H", number)),
            pair("split.count", 2, struct.pack("<H", count)),
        ],
        [],
    )


def test_split_models_need_their_first_part_and_all_others(tmp_path: Path) -> None:
    first, second = (tmp_path / f"big-0000{no}-of-00002.gguf" for no in (1, 2))
    assert "does not exist" in refusal(first, part(0, 2))
    assert "give the first part" in refusal(second, part(1, 2))
    header = read_header(first)
    assert header.parts == (first, second)
    assert header.file_bytes == first.stat().st_size + second.stat().st_size


def test_the_first_part_of_a_split_model_may_have_no_tensor(tmp_path: Path) -> None:
    first, second = (tmp_path / f"big-0000{no}-of-00002.gguf" for no in (1, 2))
    first.write_bytes(part(0, 2))
    second.write_bytes(gguf([pair("split.no", 2, struct.pack("<H", 1))], [WEIGHT], b"\0" * 200))
    assert read_header(first).n_tensors == 1


def test_a_part_under_another_name_is_refused(path: Path) -> None:
    assert "llama-gguf-split --merge" in refusal(path, part(0, 2))


@pytest.mark.model
def test_the_demo_model_is_read(model_path: Path) -> None:
    header = read_header(model_path)
    assert header.architecture == "llama"
    assert header.number("llama.block_count") == 30
    assert header.text("tokenizer.chat_template")


def test_a_tensor_of_an_unknown_type_takes_the_bytes_up_to_the_next_one(path: Path) -> None:
    tensors = [
        tensor("blk.0.ffn_up.weight", (64, 2), 8, 512),
        tensor("blk.1.ffn_up.weight", (64, 2), 999, 0),
        tensor("output.weight", (64, 2), 999, 648),
    ]
    path.write_bytes(gguf([ARCH], tensors, b"\1" * 700))
    assert read_header(path).tensor_bytes == {"blk.0": 136, "blk.1": 512, "output": 52}


def test_layers_with_states_and_layers_with_keys_are_told_apart(path: Path) -> None:
    names = ("blk.0.ssm_in.weight", "blk.1.attn_k.weight", "blk.2.ssm_a", "blk.2.attn_k.weight")
    tensors = [tensor(name, (4,), 0, 16 * at) for at, name in enumerate(names)]
    path.write_bytes(gguf([ARCH], tensors, b"\1" * 64))
    header = read_header(path)
    assert (header.state_layers, header.key_layers) == ({0, 2}, {1, 2})
