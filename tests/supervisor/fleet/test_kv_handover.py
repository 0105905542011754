"""The memory file between two workers: its owner, its content, and its end."""

import asyncio
import fcntl
import os
from collections.abc import Callable

import pytest

from gpufc.ids import Epoch
from gpufc.protocol import ExportKv, ImportKv, KvMoved
from supervisor.fleet import kv_handover
from supervisor.fleet.kv_handover import SEALS, hand_over

LIMIT = 1 << 20


class Mover:
    """Moves KV as it is told to."""

    def __init__(self, epoch: int, move: Callable[[ExportKv | ImportKv], KvMoved]) -> None:
        self.epoch = Epoch(epoch)
        self.messages: list[ExportKv | ImportKv] = []
        self._move = move

    async def move_kv(self, message: ExportKv | ImportKv) -> KvMoved:
        self.messages.append(message)
        return self._move(message)


def written(message: ExportKv | ImportKv) -> KvMoved:
    os.pwrite(message.fd, b"state", 0)
    return KvMoved(message.epoch, 1, 10, 5, 0.0)


def taken(message: ExportKv | ImportKv) -> KvMoved:
    assert fcntl.fcntl(message.fd, fcntl.F_GET_SEALS) == SEALS
    assert os.pread(message.fd, 10, 0) == b"state"
    with pytest.raises(OSError, match="not permitted"):
        os.pwrite(message.fd, b"x", 0)
    return KvMoved(message.epoch, 1, 10, 5, 0.0)


def open_memory_files() -> int:
    folder = f"/proc/{os.getpid()}/fd"
    links = [os.path.join(folder, name) for name in os.listdir(folder)]
    return sum("memfd:gpufc-kv" in os.readlink(link) for link in links if os.path.islink(link))


async def test_what_one_wrote_the_other_reads_sealed_and_nothing_stays_open() -> None:
    old, new = Mover(1, written), Mover(2, taken)
    moved = await hand_over(old, new, LIMIT)
    assert moved is not None
    assert moved.n_tokens == 10
    (export,), (imported,) = old.messages, new.messages
    assert isinstance(export, ExportKv)
    assert export.pid == imported.pid == os.getpid()
    assert export.limit_bytes <= LIMIT
    assert open_memory_files() == 0


@pytest.mark.parametrize(
    "answer", [KvMoved(Epoch(1), 0, 0, 0, 0.0), KvMoved(Epoch(1), 1, 1, 1, 0.0, error="no memory")]
)
async def test_without_anything_to_carry_the_new_worker_is_not_asked(answer: KvMoved) -> None:
    new = Mover(2, taken)
    assert await hand_over(Mover(1, lambda _: answer), new, LIMIT) is None
    assert new.messages == []
    assert open_memory_files() == 0


async def test_limit_0_switches_it_off() -> None:
    old = Mover(1, written)
    assert await hand_over(old, Mover(2, taken), 0) is None
    assert old.messages == []


async def test_a_worker_that_does_not_answer_delays_a_takeover_so_long_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Silent(Mover):
        async def move_kv(self, message: ExportKv | ImportKv) -> KvMoved:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(kv_handover, "MOVE_S", 0.05)
    assert await hand_over(Silent(1, written), Mover(2, taken), LIMIT) is None
    assert await hand_over(Mover(1, written), Silent(2, taken), LIMIT) is None
    assert open_memory_files() == 0


async def test_little_free_memory_lowers_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_handover, "free_bytes", lambda: 4000)
    old = Mover(1, written)
    await hand_over(old, Mover(2, taken), LIMIT)
    (export,) = old.messages
    assert isinstance(export, ExportKv)
    assert export.limit_bytes == 1000
