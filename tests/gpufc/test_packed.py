"""Token ids as bytes: the same ids come back, and reading a message of many makes no objects."""

import msgspec
import pytest

from gpufc import wire
from gpufc.errors import LinkError
from gpufc.ids import Epoch, RequestNo
from gpufc.packed import ID_BYTES, PART, packed, unpacked
from gpufc.protocol import Prepared
from tests.growth import calls


@pytest.mark.parametrize("n", [0, 1, PART, 2 * PART + 1])
def test_the_same_ids_come_back(n: int) -> None:
    ids = tuple((number * 7919) % 2**31 for number in range(n))
    assert tuple(unpacked(packed(ids))) == ids
    assert len(packed(ids)) == n * ID_BYTES


def test_a_message_of_many_ids_is_read_without_work() -> None:
    def read(n: int) -> int:
        data = wire.encode(Prepared(Epoch(1), RequestNo(2), packed(range(n))))
        return calls(lambda: len(wire.decode_from_worker(data).prompt_tokens))  # type: ignore[union-attr]

    assert read(10) == read(1_000_000)


def test_ids_that_are_cut_off_break_the_link() -> None:
    with pytest.raises(LinkError, match="cut off"):
        wire.decode_from_worker(msgspec.msgpack.encode(["Prepared", 1, 2, b"abc"]))
