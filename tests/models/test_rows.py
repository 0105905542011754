"""Each row of logits is that of its sequence alone, whatever the cache has been through.

Greedy tokens show a lost cell only where two tokens are nearly equal. So the logits are compared,
of a model whose keys and values are not rounded.
"""

import random
from collections.abc import Iterator

import pytest

from engine_worker.speculation.drafter import Draft, DraftRequest
from gpufc.config import KvType, KvUnified
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Cancel, Generate
from tests.models.making import made
from tests.models.reference import Reference
from tests.models.runs import N_CTX, ModelRun, loaded_as, some_tokens
from tests.models.watched import WatchedBackend, distances

NOISE = 0.05
"""Differences of rounding stay below 0.01. A window that lacks one cell moves a logit by 1.9, the
median of ten prompts."""

N_CELLS = 1024
N_REQUESTS = 16


class Guesses:
    """A drafter of random tokens, nearly all wrong: what they leave behind has to be cut."""

    position_s = None

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def assumed_rate(self, evidence: int) -> float:
        return 0.9

    def draft_all(self, requests: list[DraftRequest]) -> list[Draft]:
        return [
            Draft(self._drafted(request.limit), self._dice.randrange(32)) for request in requests
        ]

    def forget(self, key: RequestNo) -> None:
        pass

    def _drafted(self, limit: int) -> list[int]:
        return [self._dice.randrange(33, 120) for _ in range(min(limit, self._dice.randrange(9)))]


SLOW = ("jamba", "mamba2", "rwkv7", "gpt-oss")


@pytest.fixture(
    scope="module",
    params=[
        *("gemma2", "gemma3", "llama", "lfm2"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
    ],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def reference(name: str) -> Iterator[Reference]:
    alone = Reference(made(name), N_CTX, KvType.F32)
    yield alone
    alone.close()


@pytest.fixture(scope="module", params=[KvUnified.TRUE, KvUnified.FALSE])
def backend(name: str, request: pytest.FixtureRequest) -> Iterator[WatchedBackend]:
    exact = {"cache_type_k": KvType.F32, "cache_type_v": KvType.F32}
    if request.param is KvUnified.TRUE:
        exact["kv_cells"] = N_CELLS
    with loaded_as(WatchedBackend, name, request.param, **exact) as found:
        yield found


class Chance:
    """Random requests on an engine, and random events between its steps."""

    def __init__(self, backend: WatchedBackend, seed: int) -> None:
        self._dice = random.Random(seed)
        self.run = ModelRun(backend, max_idle=3, drafter=Guesses(self._dice))
        self.run.engine.fix_costs(first_s=1.0, token_s=0.0)  # drafts are free
        self._left = N_REQUESTS
        self._prompts = [some_tokens(300, seed)]

    def happen(self) -> None:
        """Called after each step: a request comes, or one is cancelled or preempted."""
        engine = self.run.engine.engine
        running = engine.scheduler.running
        event = self._dice.random()
        if self._left and event < 0.15:
            engine.inbox.put(self.request())
        elif running and event < 0.17:
            engine.inbox.put(Cancel(Epoch(1), self._dice.choice(running).request))
        elif running and event < 0.2:
            engine.scheduler.preempt(self._dice.choice(running))

    def request(self) -> Generate:
        """A prompt of its own, or one that begins like an earlier prompt."""
        self._left -= 1
        prompt = some_tokens(self._dice.randrange(20, 400), self._dice.randrange(1 << 30))
        if self._dice.random() < 0.7:
            stem = self._dice.choice(self._prompts[-5:])
            kept = stem[: self._dice.randrange(len(stem) // 4, len(stem) + 1)]
            prompt = [*kept, *prompt[: self._dice.randrange(3, 60)]]
        self._prompts.append(prompt[:600])
        return self.run.request(self._prompts[-1], self._dice.randrange(1, 60))

    def serve(self, n_left: int) -> None:
        """Serve until so many requests are left."""
        while self._left > n_left:
            self.run.engine.run(self.request(), between=self.happen)

    def succeed(self) -> None:
        """The next worker takes over what is in the cache."""
        self.run = self.run.succeeded()
        self.run.engine.fix_costs(first_s=1.0, token_s=0.0)


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 4))])
def test_every_row_of_logits_is_that_of_its_sequence_alone(
    backend: WatchedBackend, reference: Reference, seed: int
) -> None:
    backend.forget()
    chance = Chance(backend, seed)
    chance.serve(N_REQUESTS // 2)
    chance.succeed()
    chance.serve(0)
    found = distances(backend.rows, reference)
    assert len(found) >= 150
    assert (backend.n_cut if backend.facts.can_cut else backend.n_copied) >= 20
    assert max(found) < NOISE
