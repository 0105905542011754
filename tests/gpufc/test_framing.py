"""Messages with their length before them, from a pipe or out of a buffer."""

import io

import pytest

from gpufc.errors import LinkError
from gpufc.framing import HEADER_BYTES, frame, read_frame, take_frames


def one_byte_at_a_time(data: bytes) -> "io.BytesIO":
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(1, size or 0))

    return Slow(data)


def test_messages_are_read_back_however_slowly_they_come() -> None:
    stream = one_byte_at_a_time(frame(b"one") + frame(b"") + frame(b"three"))
    assert [read_frame(stream.read, 5) for _ in range(4)] == [b"one", b"", b"three", None]


@pytest.mark.parametrize("n_bytes", range(HEADER_BYTES + 3))
def test_a_stream_that_ends_within_a_message_has_no_message(n_bytes: int) -> None:
    assert read_frame(io.BytesIO(frame(b"one")[:n_bytes]).read, 5) is None


def test_a_length_over_the_limit_is_refused_before_the_message_is_read() -> None:
    stream = io.BytesIO(frame(b"toolong"))
    with pytest.raises(LinkError, match="7 bytes is over the limit of 6"):
        read_frame(stream.read, 6)
    assert stream.tell() == HEADER_BYTES


def test_a_buffer_keeps_what_is_not_complete() -> None:
    buffer = bytearray()
    taken = []
    for byte in frame(b"one") + frame(b"two") + b"\0\0":
        buffer.append(byte)
        taken += list(take_frames(buffer, 5))
    assert taken == [b"one", b"two"]
    assert buffer == b"\0\0"


def test_a_buffer_with_a_length_over_the_limit_is_refused() -> None:
    buffer = bytearray(frame(b"one") + frame(b"toolong"))
    with pytest.raises(LinkError):
        list(take_frames(buffer, 6))
    assert buffer == frame(b"toolong")
