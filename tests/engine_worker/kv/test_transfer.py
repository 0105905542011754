"""KV states move from one worker to its successor, or the successor prefills."""

import fcntl
import os
from collections.abc import Iterator

import msgspec
import pytest

from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.fake.vocabulary import tokenize
from engine_worker.kv.edits import KvEdit, Remove
from engine_worker.kv.file import KvFileError, KvReader
from engine_worker.kv.transfer import SEALS, Holding, Transfer, export, opened, take_over
from gpufc.config import BackendKind, ModelConfig
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.lending import lent
from gpufc.protocol import ExportKv, Generate, ImportKv, KvMoved, Step
from gpufc.sampling import SamplingParams
from tests.engine_worker.engine.engine_runs import EngineRun

CELL_BYTES = 8
"""Of the scripted engine: a token, and the salt of its adapters."""


class States:
    """A backend with a text as the state of each slot."""

    def __init__(
        self,
        texts: dict[int, bytes] | None = None,
        *,
        refuses: int | None = None,
        gaps: tuple[int, ...] = (),
    ) -> None:
        self.texts = texts or {}
        self._gaps = gaps
        self._refuses = refuses

    def keeps_prefix(self, slot: int, n_tokens: int) -> bool:
        return slot not in self._gaps

    def state_bytes(self, slot: int) -> int:
        return len(self.texts.get(slot, b""))

    def export_state(self, slot: int, memory: memoryview) -> int:
        memory[:] = self.texts[slot]
        return len(memory)

    def import_state(self, slot: int, memory: memoryview) -> bool:
        if slot == self._refuses:
            return False
        self.texts[slot] = bytes(memory)
        return True


class Keeper:
    """A keeper with `n_free` free slots."""

    def __init__(self, n_free: int) -> None:
        self.free = list(range(10, 10 + n_free))
        self.held: dict[int, tuple[str, tuple[int, ...]]] = {}

    def take_edits(self) -> list[KvEdit]:
        return []

    def holdings(self) -> list[Holding]:
        return []

    def adopt(self, scope: str, tokens: tuple[int, ...]) -> int | None:
        if not self.free:
            return None
        slot = self.free.pop(0)
        self.held[slot] = (scope, tokens)
        return slot

    def disown(self, slot: int) -> None:
        del self.held[slot]
        self.free.append(slot)


@pytest.fixture
def fd() -> Iterator[int]:
    number = os.memfd_create("kv", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with lent(number):
        yield number
    os.close(number)


OLD = States({0: b"zero", 4: b"four!"})
HOLDINGS = [Holding(4, "b", (4, 5)), Holding(7, "c", (7,)), Holding(0, "a", (1, 2, 3))]


def exported(fd: int) -> Transfer:
    return export(OLD, HOLDINGS, fd, fingerprint="f", limit_bytes=1 << 20)


def test_states_are_taken_over_in_order(fd: int) -> None:
    done = exported(fd)
    assert (done.n_sequences, done.n_tokens) == (2, 5)
    new, keeper = States(), Keeper(5)
    done = take_over(new, keeper, fd, fingerprint="f")
    assert (done.n_sequences, done.n_tokens, done.n_bytes) == (2, 5, 9)
    assert new.texts == {10: b"four!", 11: b"zero"}
    assert keeper.held == {10: ("b", (4, 5)), 11: ("a", (1, 2, 3))}


def test_a_state_that_has_lost_its_window_is_left_out(fd: int) -> None:
    old = States(OLD.texts, gaps=(4,))
    assert export(old, HOLDINGS, fd, fingerprint="f", limit_bytes=1 << 20).n_sequences == 1
    assert [saved.tokens for saved in KvReader(fd, "f").sequences] == [(1, 2, 3)]


def test_a_state_that_does_not_fit_is_left_out(fd: int) -> None:
    exported(fd)
    new = States()
    assert take_over(new, Keeper(1), fd, fingerprint="f").n_sequences == 1
    assert new.texts == {10: b"four!"}


def test_a_state_that_is_not_accepted_leaves_its_slot_free(fd: int) -> None:
    exported(fd)
    keeper = Keeper(2)
    assert take_over(States(refuses=10), keeper, fd, fingerprint="f").n_sequences == 1
    assert keeper.held == {11: ("a", (1, 2, 3))}
    assert keeper.free == [10]


def test_another_models_file_is_refused(fd: int) -> None:
    exported(fd)
    with pytest.raises(KvFileError, match="another model"):
        take_over(States(), Keeper(1), fd, fingerprint="g")


def test_a_file_that_can_still_be_written_is_not_read(fd: int) -> None:
    with opened(os.getpid(), fd, sealed=False) as mine:
        exported(mine)
    with pytest.raises(KvFileError, match="not sealed"), opened(os.getpid(), fd, sealed=True):
        pass
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    new = States()
    with opened(os.getpid(), fd, sealed=True) as mine:
        take_over(new, Keeper(2), mine, fingerprint="f")
    assert new.texts == {10: b"four!", 11: b"zero"}
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)


def test_a_file_that_is_gone_is_refused() -> None:
    with pytest.raises(KvFileError), opened(os.getpid(), 999_999, sealed=True):
        pass


def generate(request: int, tokens: list[int]) -> Generate:
    return Generate(
        Epoch(1),
        RequestNo(request),
        RequestId(f"r{request}"),
        0,
        tuple(tokens),
        SamplingParams(temperature=0.0, seed=1),
        max_tokens=8,
    )


def engine_run() -> EngineRun:
    return EngineRun(FakeBackend(ModelConfig(backend=BackendKind.FAKE), 6))


def move(run: EngineRun, message: ExportKv | ImportKv) -> KvMoved:
    run.engine.inbox.put(message)
    run.engine.take_requests()
    (moved,) = [message for message in run.messages if isinstance(message, KvMoved)]
    return moved


def test_an_engine_continues_from_the_cells_of_another_one(fd: int) -> None:
    prompt = tokenize("A prefix that is long enough to be worth keeping", add_special=True)
    old, new = engine_run(), engine_run()
    old.run(generate(1, prompt))
    moved = move(old, ExportKv(Epoch(1), os.getpid(), fd, 1 << 20))
    assert (moved.n_sequences, moved.error) == (1, "")
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)

    assert move(new, ImportKv(Epoch(1), os.getpid(), fd)).n_sequences == 1
    new.run(generate(2, prompt))
    steps = [message for message in new.messages if isinstance(message, Step)]
    (started,) = [start for step in steps for start in step.started]
    assert started.n_cached == len(prompt) - 1
    assert new.text(2) == old.text(1)


def test_an_engine_says_why_it_cannot_take_over(fd: int) -> None:
    assert "sealed" in move(engine_run(), ImportKv(Epoch(1), os.getpid(), fd)).error


def test_pending_removals_do_not_delete_cells_that_were_taken_over(fd: int) -> None:
    old, new = engine_run(), engine_run()
    prompts = [
        tokenize(f"{n}: a prefix that is long enough to be worth keeping", add_special=True)
        for n in range(1, 5)
    ]
    for n, prompt in enumerate(prompts, 1):
        old.run(generate(n, prompt))
    n_kept = move(old, ExportKv(Epoch(1), os.getpid(), fd, 1 << 20)).n_sequences
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    trial = msgspec.structs.replace(generate(9, prompts[0][:8]), cache_prompt=False)
    new.run(trial)
    assert move(new, ImportKv(Epoch(1), os.getpid(), fd)).n_sequences == n_kept > 0
    for n, prompt in enumerate(prompts, 1):
        new.run(generate(n, prompt))
        assert new.text(n) == old.text(n)


def test_cells_of_rejected_drafts_are_not_handed_over(fd: int) -> None:
    run = engine_run()
    prompt = tokenize("A prefix that is long enough to be worth keeping", add_special=True)
    run.run(generate(1, prompt))
    slots = run.engine.scheduler.slots
    (held,) = slots.holdings()
    n_cells = len(held.tokens) - 3
    slots._edits.append(Remove(held.slot, n_cells))
    move(run, ExportKv(Epoch(1), os.getpid(), fd, 1 << 20))
    (saved,) = KvReader(fd, run.engine._backend.facts.fingerprint).sequences
    assert saved.size == CELL_BYTES * n_cells
