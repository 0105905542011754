"""The wire protocol: golden frames made with the original's own types, and damaged ones."""

import contextlib
import json
import random
from enum import IntEnum
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.fabric import messages
from supervisor.fabric.codec import (
    HEADER,
    MAX_FRAME_BYTES,
    ProtocolError,
    decode_frame,
    encode_frame,
    frame_size,
)
from supervisor.fabric.messages import COMMANDS, Command

GOLDEN = json.loads((Path(__file__).parent / "vectors.json").read_text())
VECTORS = [vector for vector in GOLDEN if "variant" in vector]
EXAMPLES = [vector for vector in GOLDEN if "example" in vector]


def plain(value: Any) -> Any:
    """A message's value as the golden file writes it."""
    match value:
        case msgspec.Struct():
            return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
        case list():
            return [plain(one) for one in value]
        case bytes():
            return value.hex()
        case IntEnum():
            return value.name.replace("_", "").lower()
        case bool() | None | str() | float():
            return value
        case int():
            return str(value)
    raise TypeError(type(value))


def golden(value: Any) -> Any:
    match value:
        case dict():
            return {
                name: one.lower() if name in ENUMS and isinstance(one, str) else golden(one)
                for name, one in value.items()
            }
        case list():
            return [golden(one) for one in value]
        case bool() | None | str() | float():
            return value
        case int():
            return str(value)
    raise TypeError(type(value))


ENUMS = {"os_type", "engine_type", "phase", "status", "transport", "candidate_type",
         "connection_type"}  # fmt: skip


def close(found: Any, wanted: Any) -> bool:
    """Equal, where a number of four bytes may be rounded."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(close(found[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(close, found, wanted))
    if isinstance(wanted, float):
        return isinstance(found, float) and found == pytest.approx(wanted, rel=1e-6)
    return bool(found == wanted)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['variant']}")
def test_a_golden_frame_is_read_and_written_to_the_byte(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["frame_hex"])
    assert frame_size(frame[: HEADER.size]) == len(frame) - HEADER.size
    message = decode_frame(frame[HEADER.size :])
    assert type(message).__name__ == vector["variant"]
    assert close(plain(message), golden(vector["fields"]))
    assert encode_frame(message) == frame


@pytest.mark.parametrize("vector", EXAMPLES, ids=lambda v: v["example"].split()[0])
def test_a_worked_example_is_written_as_it_was_read(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["frame_hex"])
    message = decode_frame(frame[HEADER.size :])
    assert type(message).__name__ == vector["example"].split()[0].strip(",")
    assert encode_frame(message) == frame


def test_the_golden_frames_have_every_message() -> None:
    known = {command.__name__ for commands in COMMANDS for command in commands}
    assert {vector["variant"] for vector in VECTORS} == known
    assert len(known) == 24


def test_bytes_after_the_last_field_are_ignored() -> None:
    frame = bytes.fromhex(VECTORS[0]["frame_hex"])[HEADER.size :]
    assert decode_frame(frame + b"\xff\0") == decode_frame(frame)


@pytest.mark.parametrize("vector", VECTORS[::3], ids=lambda v: f"{v['variant']}")
def test_a_frame_that_ends_anywhere_earlier_is_an_error(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["frame_hex"])[HEADER.size :]
    for end in range(min(len(frame), 600)):
        with pytest.raises(ProtocolError):
            decode_frame(frame[:end])


def test_damaged_frames_raise_nothing_but_protocol_errors() -> None:
    dice = random.Random(7)
    frames = [bytes.fromhex(vector["frame_hex"])[HEADER.size :] for vector in VECTORS]
    n_errors = 0
    for _ in range(20_000):
        frame = bytearray(dice.choice(frames))
        for _ in range(dice.randrange(1, 4)):
            frame[dice.randrange(min(len(frame), 200))] = dice.randrange(256)
        try:
            assert isinstance(decode_frame(bytes(frame)), Command)
        except ProtocolError:
            n_errors += 1
    assert n_errors > 1000


@given(st.binary(max_size=400))
def test_noise_raises_nothing_but_protocol_errors(noise: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert isinstance(decode_frame(noise), Command)


def test_an_announced_count_takes_no_memory() -> None:
    huge = (2**60).to_bytes(8, "little")
    frame = (0).to_bytes(4, "little") + (5).to_bytes(4, "little") + huge
    with pytest.raises(ProtocolError, match="entries"):
        decode_frame(frame)


def test_a_frame_over_the_limit_is_neither_sent_nor_read() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        frame_size(HEADER.pack(MAX_FRAME_BYTES + 1))
    with pytest.raises(ProtocolError, match="at most"):
        encode_frame(messages.CancelInference("x" * MAX_FRAME_BYTES))


@pytest.mark.parametrize(
    "message",
    [
        messages.NewProxyConn(b"short"),
        messages.InferenceTask("t", "p", 2**32, 0.7, 40, 0.9, 1.1, 64, 1),
        messages.InferenceTask("t", "p", -1, 0.7, 40, 0.9, 1.1, 64, 1),
        messages.CancelInference("\ud800"),
        messages.CancelInference(None),  # type: ignore[arg-type]
    ],
    ids=["id", "large", "negative", "surrogate", "null"],
)
def test_a_value_that_has_no_encoding_is_not_sent(message: Command) -> None:
    with pytest.raises(ProtocolError):
        encode_frame(message)


def test_the_tags_are_the_indexes_of_declaration() -> None:
    kinds = [kind for kind in vars(messages).values() if isinstance(kind, type)]
    enums = [kind for kind in kinds if issubclass(kind, IntEnum) and kind is not IntEnum]
    assert len(enums) == 7
    for kind in enums:
        assert list(kind) == list(range(len(kind)))
    assert get_args(messages.U128)
