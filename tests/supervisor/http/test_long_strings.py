"""Texts with long strings are decoded in steps as they are decoded at once."""

import json
import tracemalloc
from codecs import BOM_UTF8
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from supervisor.http.edge import body, body_cost, long_strings
from supervisor.http.edge.long_strings import decode_in_steps
from supervisor.http.edge.values import decode

PIECE_BYTES = 16
UNITS = ("a", "\n", '"', "\\", "é", "語", "🙂", "\\u00e9", "a\\", "\0")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_cost, "PIECE_BYTES", PIECE_BYTES)
    monkeypatch.setattr(long_strings, "PIECE_BYTES", PIECE_BYTES)
    monkeypatch.setattr(body, "LEAST_BYTES", 2 * PIECE_BYTES)


def in_steps(text: bytes, kind: Any = Any) -> tuple[Any, int]:
    """The value, and the number of stretches that were cut out."""
    weighed = body._weighed(bytearray(text))
    found = decode_in_steps(text, weighed.stretches, weighed.n_members, kind, lambda: None)
    return found, len(weighed.stretches)


def read(text: bytes, kind: Any = Any) -> Any:
    """The value, as a large body is read."""
    return body._decode(bytearray(text), kind, body._weighed(bytearray(text)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(UNITS), max_size=60).map("".join),
    st.integers(0, 20),
    st.booleans(),
)
def test_every_string_is_the_same(unit: str, n_before: int, ascii_only: bool) -> None:
    value = {"x" * n_before: [unit * 3, 1, {"key" + unit: unit + "end"}], "other": unit}
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert in_steps(text)[0] == value


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_long_string_is_cut_out_wherever_its_pieces_end(unit: str, ascii_only: bool) -> None:
    for shift in range(2 * PIECE_BYTES):
        value = {"content": "x" * shift + unit * 120, "n": 3}
        found, n_stretches = in_steps(json.dumps(value, ensure_ascii=ascii_only).encode())
        assert found == value
        assert n_stretches == 1


class Typed(Struct):
    content: str
    n: int = 0


def test_types_are_checked_and_whole_numbers_may_be_floats() -> None:
    content = "\n" * 90
    text = json.dumps({"content": content, "n": 2.0, "unknown": [None]}).encode()
    assert in_steps(text, Typed)[0] == Typed(content, 2)
    with pytest.raises(msgspec.ValidationError, match=r"\$\.n"):
        in_steps(text.replace(b"2.0", b"2.5"), Typed)


@pytest.mark.parametrize("broken", [b"\n", b"\\x", b"\\ud83d", b"\xff"])
def test_a_string_that_is_no_json_is_refused(broken: bytes) -> None:
    text = b'{"content": "%s%s%s"}' % (b"a" * 60, broken, b"a" * 60)
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        in_steps(text, Typed)
    with pytest.raises(msgspec.DecodeError):
        in_steps(b'{"content": "%s' % (b"a" * 200), Typed)


@pytest.mark.parametrize("unit", ["\\\\", "\\ud83d\\ude00", "\\n"])
def test_the_work_grows_with_the_length(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cut looks further back than to the cut before it."""
    looked: list[int] = []
    count = long_strings._n_backslashes

    def noted(text: Any, known: int, at: int) -> int:
        looked.append(at - known)
        return count(text, known, at)

    monkeypatch.setattr(long_strings, "_n_backslashes", noted)
    text = b'{"content": "%s"}' % (unit.encode() * 500)
    assert in_steps(text)[0] == json.loads(text)
    assert max(looked) <= PIECE_BYTES + 12


@pytest.mark.parametrize("before", [b"", BOM_UTF8])
@pytest.mark.parametrize("length", [3, 200])
def test_a_byte_order_mark_is_read_over(before: bytes, length: int) -> None:
    text = before + b'{"content": "%s", "n": 3.0}' % (b"a" * length)
    assert read(text, Typed) == decode(text, Typed) == Typed("a" * length, 3)


def nested(n_levels: int) -> bytes:
    return b'{"content": "%s", "x": %s%s}' % (b"a" * 200, b"[" * n_levels, b"]" * n_levels)


@pytest.mark.parametrize(
    "text",
    [
        nested(900),
        b'{"content": "%s", "x": 1e400}' % (b"a" * 200),
        b'{"content": "%s", "n": 1e400}' % (b"a" * 200),
        b'{"content": "%s", "n": 1.5}' % (b"a" * 200),
        b'{"content": "%s",, "n": 1}' % (b"a" * 200),
        b'{"content": "%s\\x%s"}' % (b"a" * 100, b"a" * 100),
        b'{"content": "%s\xff%s"}' % (b"a" * 100, b"a" * 100),
        b'{"content": "%s"' % (b"a" * 200),
    ],
)
def test_a_text_that_the_steps_refuse_is_read_as_at_once(text: bytes) -> None:
    """The same value, or the same error with the same place."""
    assert outcome(read, text) == outcome(decode, text)


def outcome(reads: Callable[[bytes, Any], Any], text: bytes) -> Any:
    try:
        return reads(text, Typed)
    except (msgspec.MsgspecError, UnicodeDecodeError) as err:
        return type(err), str(err)


def test_a_long_string_is_there_once_besides_its_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython needs the width of the widest character for each, twice while it makes UTF-8."""
    monkeypatch.undo()
    text = bytearray('{"content": "🙂%s"}' % ("a" * (3 << 20)), "utf-8")
    weighed = body._weighed(text)
    assert weighed.stretches
    tracemalloc.start()
    try:
        found = body._decode(text, Typed, weighed)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.content) == (3 << 20) + 1
    assert kept < 5.2 * len(text)
    assert peak < 9.6 * len(text)
