"""A real worker process tells of the calls that hold its interpreter's lock, and when it makes
them: before it is ready, or for its first constraint if requests wait for it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import zmq

from engine_worker.backend.fake.vocabulary import tokenize
from gpufc.config import BackendKind, ModelConfig
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.ids import Epoch, RequestId, RequestNo, WorkerName
from gpufc.protocol import (
    NO_RULES,
    Boot,
    Delta,
    FromWorker,
    Generate,
    Heartbeat,
    Ready,
    Step,
    TokenRules,
)
from gpufc.sampling import SamplingParams
from supervisor.fleet.link import WorkerLink
from supervisor.fleet.process import WORKER_COMMAND, WorkerProcess

EPOCH, TOKEN = Epoch(7), "token"
N_CTX = 1 << 20
"""The context of a stream that ends in no test."""


def request(number: int, constraint: Constraint | None = None) -> Generate:
    """A sequence that no end token ends before its context is full, unless it is guided."""
    return Generate(
        EPOCH,
        RequestNo(number),
        RequestId(f"r{number}"),
        0,
        tuple(tokenize("a prompt", add_special=True)),
        SamplingParams(seed=1),
        constraint=constraint,
        rules=NO_RULES if constraint else TokenRules(min_tokens=N_CTX),
    )


class Front:
    """One worker and all that it has said."""

    def __init__(self, folder: Path) -> None:
        self.heard: list[FromWorker] = []
        self._news = asyncio.Event()
        self.gone = asyncio.Event()
        self.link = WorkerLink(
            zmq.Context.instance(),
            folder / "front.sock",
            EPOCH,
            TOKEN,
            on_message=self._hear,
            on_broken=lambda detail, retryable: None,
        )
        self.process = WorkerProcess(
            WORKER_COMMAND, folder / "worker.log", lambda code, status: self.gone.set()
        )
        self.link.expect(self.process.pid)

    def boot(self, *, is_awaited: bool) -> None:
        model = ModelConfig(backend=BackendKind.FAKE, fake_script="step_ms=2", n_ctx=N_CTX)
        name = WorkerName("default-0")
        self.process.boot(
            Boot(EPOCH, name, self.link.endpoint, TOKEN, model, 4, is_awaited=is_awaited)
        )

    def _hear(self, message: FromWorker) -> None:
        self.heard.append(message)
        self._news.set()

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not holds():
                self._news.clear()
                await self._news.wait()

    def has(self, kind: type[FromWorker]) -> bool:
        return any(isinstance(message, kind) for message in self.heard)

    def deltas(self, number: int) -> list[Delta]:
        """What the worker has generated of this sequence."""
        steps = [message for message in self.heard if isinstance(message, Step)]
        return [delta for step in steps for delta in step.deltas if delta.request == number]

    @property
    def n_told(self) -> int:
        """How often the worker has told of such a call."""
        beats = [one.holds_lock for one in self.heard if isinstance(one, Heartbeat)]
        return sum(now and not before for before, now in zip([False, *beats], beats, strict=False))


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    made = Front(tmp_path)
    yield made
    made.process.signal(signal.SIGKILL, group=True)
    async with asyncio.timeout(60):
        await made.gone.wait()
    made.link.close()


async def test_a_worker_that_no_request_waits_for_reads_it_before_it_is_ready(
    front: Front,
) -> None:
    front.boot(is_awaited=False)
    await front.until(lambda: front.has(Ready))
    assert front.n_told > 0


async def test_a_busy_worker_that_requests_wait_for_reads_it_for_the_first_constraint(
    front: Front,
) -> None:
    """The stream without a constraint keeps the worker busy. An idle one would read it anyway."""
    front.boot(is_awaited=True)
    await front.until(lambda: front.has(Ready))
    assert front.n_told == 0
    front.link.send(request(1))
    await front.until(lambda: front.deltas(1))
    front.link.send(request(2, Constraint(ConstraintKind.REGEX, "[a-z]+")))
    await front.until(lambda: front.deltas(2))
    assert front.n_told > 0
    assert front.deltas(1)[-1].finish is None
