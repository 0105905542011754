"""A real worker process that is told to attach to another front, over real links."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
import zmq

from engine_worker.backend.fake.backend import expected_text
from engine_worker.backend.fake.vocabulary import tokenize
from gpufc import end_word
from gpufc.config import BackendKind, ModelConfig
from gpufc.ids import Epoch, RequestId, RequestNo, WorkerName
from gpufc.protocol import (
    Attach,
    Boot,
    FromWorker,
    Generate,
    Heartbeat,
    Hello,
    Loading,
    Prepare,
    Prepared,
    Ready,
    Shutdown,
    Step,
    TextPrompt,
)
from gpufc.sampling import SamplingParams
from supervisor.fleet.followed import Lent
from supervisor.fleet.link import WorkerLink
from supervisor.fleet.process import WORKER_COMMAND, WorkerProcess
from supervisor.handover.adopted import AdoptedProcess, Inherited
from tests.integration.fake_service import ENDLESS
from tests.supervisor.reaping import not_reaped

FIRST, SECOND = Epoch(7), Epoch(9)
PROMPT = tuple(tokenize("a prompt that goes on", add_special=True))


class Peer:
    """A front, as far as one worker can tell."""

    def __init__(self, folder: Path, name: str, epoch: Epoch) -> None:
        self.epoch = epoch
        self.token = f"token-of-{name}"
        self.heard: list[FromWorker] = []
        self.broken: list[str] = []
        self._news = asyncio.Event()
        self.link = WorkerLink(
            zmq.Context.instance(),
            folder / f"{name}.sock",
            epoch,
            self.token,
            on_message=self._hear,
            on_broken=lambda detail, retryable: self.broken.append(detail),
        )

    def _hear(self, message: FromWorker) -> None:
        self.heard.append(message)
        self._news.set()

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not holds():
                self._news.clear()
                await self._news.wait()

    async def until_ready(self) -> Ready:
        await self.until(lambda: self.of(Ready))
        return self.of(Ready)[0]

    def of(self, kind: type) -> list:  # type: ignore[type-arg]
        return [message for message in self.heard if isinstance(message, kind)]

    def generate(self, request: int, max_tokens: int, tokens: tuple[int, ...] = ()) -> None:
        self.link.send(
            Generate(
                self.epoch,
                RequestNo(request),
                RequestId("id"),
                0,
                PROMPT,
                SamplingParams(seed=1),
                max_tokens=max_tokens,
                tokens=tokens,
            )
        )

    def gained(self, request: int) -> tuple[list[int], str]:
        """Tokens and text of a sequence so far."""
        deltas = [d for step in self.of(Step) for d in step.deltas if d.request == request]
        tokens = [token for delta in deltas for token in delta.tokens]
        return tokens, "".join(delta.text for delta in deltas)

    def finished(self, request: int) -> bool:
        deltas = [d for step in self.of(Step) for d in step.deltas if d.request == request]
        return any(delta.finish is not None for delta in deltas)


class Pair:
    """A worker that serves `first`, and `second`, which it has not heard of."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "worker.log"
        self.exits: list[tuple[int, int]] = []
        self.first = Peer(folder, "first", FIRST)
        self.second = Peer(folder, "second", SECOND)
        self.process = WorkerProcess(WORKER_COMMAND, self.log, self._exited)
        self.gone = asyncio.Event()
        for peer in (self.first, self.second):
            peer.link.expect(self.process.pid)
        self.process.boot(
            Boot(
                FIRST,
                WorkerName("default-0"),
                self.first.link.endpoint,
                self.first.token,
                ModelConfig(
                    backend=BackendKind.FAKE,
                    fake_script="step_ms=2",
                    n_ctx=2 * ENDLESS,
                    kv_cells=4 * ENDLESS,
                ),
                n_sequences=4,
            )
        )

    def _exited(self, si_code: int, si_status: int) -> None:
        self.exits.append((si_code, si_status))
        self.gone.set()

    def attach(self) -> None:
        second = self.second
        self.first.link.send(Attach(FIRST, SECOND, second.link.endpoint, second.token))

    async def until_gone(self) -> tuple[int, int]:
        async with asyncio.timeout(60):
            await self.gone.wait()
        return self.exits[0]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.process.signal(signal.SIGKILL, group=True)
    await made.until_gone()
    made.first.link.close()
    made.second.link.close()


async def test_it_serves_the_new_front_with_the_model_that_it_has(pair: Pair) -> None:
    before = await pair.first.until_ready()
    pair.attach()
    after = await pair.second.until_ready()
    assert [type(m) for m in pair.second.heard[:2]] == [Hello, Ready]
    assert (after.epoch, after.facts, after.loaded_in_s) == (
        SECOND,
        before.facts,
        before.loaded_in_s,
    )
    assert not pair.second.of(Loading)
    pair.second.link.send(Prepare(SECOND, RequestNo(1), TextPrompt("hello")))
    pair.second.generate(2, 20)
    await pair.second.until(lambda: pair.second.finished(2) and pair.second.of(Prepared))
    assert pair.second.gained(2)[1] == expected_text(PROMPT, 20)
    await pair.second.until(lambda: pair.second.of(Heartbeat))
    assert pair.second.broken == []


async def test_a_sequence_goes_on_at_the_new_front_and_nothing_of_the_old_is_heard(
    pair: Pair,
) -> None:
    await pair.first.until_ready()
    pair.first.generate(5, ENDLESS)
    await pair.first.until(lambda: len(pair.first.gained(5)[0]) >= 10)
    pair.attach()
    tokens, text = pair.first.gained(5)
    n_tokens = len(tokens) + 50
    await pair.second.until_ready()
    pair.second.generate(5, n_tokens, tuple(tokens))  # the number means another sequence here
    await pair.second.until(lambda: pair.second.finished(5))
    assert text + pair.second.gained(5)[1] == expected_text(PROMPT, n_tokens)
    deltas = [delta for step in pair.second.of(Step) for delta in step.deltas]
    assert deltas[0].position == len(tokens)
    assert all(message.epoch == SECOND for message in pair.second.heard)
    started = [s for step in pair.second.of(Step) for s in step.started]
    assert started[0].n_cached > 0


async def test_the_old_front_cannot_reach_it_any_more(pair: Pair) -> None:
    await pair.first.until_ready()
    pair.attach()
    await pair.second.until_ready()
    pair.first.link.send(Shutdown(FIRST))
    pair.second.generate(1, 10)
    await pair.second.until(lambda: pair.second.finished(1))
    assert pair.process.is_alive()


def copied(pair: Pair) -> Lent:
    """What the new front gets of the process."""
    lent = pair.process.lend()
    word = None if lent.end_word is None else os.dup(lent.end_word)
    return Lent(os.dup(lent.pidfd), os.dup(lent.boot_write), word)


@pytest.mark.parametrize(
    ("number", "seen"),
    [
        (signal.SIGKILL, (os.CLD_KILLED, signal.SIGKILL)),
        (signal.SIGSEGV, (os.CLD_KILLED, signal.SIGSEGV)),
        (None, (os.CLD_EXITED, 0)),
    ],
)
async def test_an_adopted_process_tells_how_it_ended(
    pair: Pair, number: signal.Signals | None, seen: tuple[int, int]
) -> None:
    await pair.first.until_ready()
    told: list[tuple[int, int]] = []
    gone = asyncio.Event()

    def exited(si_code: int, si_status: int) -> None:
        told.append((si_code, si_status))
        gone.set()

    adopted = AdoptedProcess(Inherited(pair.process.pid, copied(pair)), pair.log, exited)
    ending: list[tuple[int, int]] = []
    adopted.on_ending = lambda code, status: ending.append((code, status))
    adopted.watch_end()  # it is not ours yet
    adopted.signal(signal.SIGKILL)  # it is not ours yet
    pair.attach()
    await pair.second.until_ready()
    assert adopted.vitals() is not None
    assert adopted.rss_bytes() > 1_000_000
    adopted.attach()
    adopted.watch_end()
    if number is None:
        pair.second.link.send(Shutdown(SECOND))
    else:
        adopted.signal(number)
    async with asyncio.timeout(60):
        await gone.wait()
    assert told == [seen]
    # a code of 0 cannot be told from a process that runs, nor any code of one that is reaped
    assert ending in ([], [seen] if number is not None else [])
    assert await pair.until_gone() == seen


class Told:
    """An adopted process and its news. Its pidfd is read in `end` only: until then it is as if the
    process's memory were still being given back."""

    def __init__(self, pair: Pair) -> None:
        self.news: list[tuple[str, int, int]] = []
        self._first = asyncio.Event()
        inherited = Inherited(pair.process.pid, copied(pair))
        self.process = AdoptedProcess(inherited, pair.log, partial(self._tell, "exit"))
        self.process.on_ending = partial(self._tell, "ending")

    def attach(self) -> None:
        self.process.attach()
        self.process._loop.remove_reader(self.process._pidfd)

    async def until_first(self) -> None:
        async with asyncio.timeout(60):
            await self._first.wait()

    def end(self) -> None:
        self.process._ended()

    def _tell(self, what: str, code: int, status: int) -> None:
        self.news.append((what, code, status))
        self._first.set()


KILLED = (os.CLD_KILLED, signal.SIGKILL)


@pytest.mark.skipif(not end_word.is_supported(), reason="no glibc on a known processor")
async def test_a_death_between_readiness_and_takeover_is_told_early(pair: Pair) -> None:
    """The old front sends `Go` and `Attach` at once: the worker may be ready here before `Go`."""
    await pair.first.until_ready()
    told = Told(pair)
    told.process.watch_end()  # the runner's, at `Ready`
    with not_reaped(pair.process):
        pair.process.signal(signal.SIGKILL)
        async with asyncio.timeout(60):
            while pair.process.is_alive():  # noqa: ASYNC110 - a process wakes no task
                await asyncio.sleep(0.002)
        assert told.news == []  # it was the old front's
        told.attach()
        await told.until_first()
        told.end()
    assert told.news == [("ending", *KILLED), ("exit", *KILLED)]


@pytest.mark.skipif(not end_word.is_supported(), reason="no glibc on a known processor")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_worker_that_was_ready_before_the_takeover_is_watched_after_it(
    pair: Pair, number: signal.Signals
) -> None:
    await pair.first.until_ready()
    told = Told(pair)
    told.process.watch_end()
    told.attach()
    with not_reaped(pair.process):
        told.process.signal(number)
        await told.until_first()
        told.end()
    seen = (os.CLD_KILLED, number)
    assert told.news == [("ending", *seen), ("exit", *seen)]


PARENT = """
import asyncio, os, sys
from pathlib import Path
from tests.supervisor.handover.test_attach import FIRST, SECOND, Attach, Pair

async def main():
    pair = Pair(Path(sys.argv[1]))
    await pair.first.until_ready()
    print(pair.process.pid, pair.process.lend().boot_write)
    sys.stdout.flush()
    pair.first.link.send(Attach(FIRST, SECOND, *sys.stdin.readline().split()))
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("held", [True, False])
async def test_it_outlives_its_parent_as_long_as_the_pipe_is_held(
    tmp_path: Path, held: bool
) -> None:
    second = Peer(tmp_path, "successor", SECOND)
    parent = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", PARENT, str(tmp_path)],
        cwd=Path(__file__).parents[3],  # whence it imports this module
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    pid, boot_write = map(int, (await asyncio.to_thread(parent.stdout.readline)).split())
    second.link.expect(pid)
    print(second.link.endpoint, second.token, file=parent.stdin, flush=True)
    await second.until_ready()
    pidfd = os.pidfd_open(pid)
    tether = os.open(f"/proc/{parent.pid}/fd/{boot_write}", os.O_WRONLY)
    if not held:
        os.close(tether)
    parent.kill()
    await asyncio.to_thread(parent.wait)
    parent.stdin.close()
    parent.stdout.close()
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, gone.set)
    try:
        if held:
            beats = len(second.of(Heartbeat))
            await second.until(lambda: len(second.of(Heartbeat)) >= beats + 3)
            assert not gone.is_set()
            os.close(tether)
        async with asyncio.timeout(60):
            await gone.wait()
    finally:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        second.link.close()
