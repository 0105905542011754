"""The messages of the engine, in their order, and the costs of its steps."""

import logging
from collections.abc import Callable, Iterable

from msgspec import Struct

from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.text.sequence import Sequence
from gpufc.errors import DecodeFailed, RequestError
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import (
    Delta,
    EngineFailed,
    Finished,
    FinishReason,
    FromWorker,
    Refused,
    Started,
    Step,
)

logger = logging.getLogger(__name__)

Emit = Callable[[FromWorker], None]


class StepCost(Struct, frozen=True):
    """Computing `n_tokens` took `computing_s`, choosing from `n_rows` of logits `choosing_s`."""

    n_tokens: int
    computing_s: float
    n_rows: int
    choosing_s: float


class StepResult(Struct, frozen=True):
    """The result of one step: `gained` have tokens that no message has reported yet."""

    step: int
    gained: list[Sequence]
    started: list[Started]
    n_recomputed: int
    cost: StepCost


class Reporter:
    """The engine's way out.

    Invariant: a result that is held is reported before any later message. With `may_hold` the next
    step is computed while it is reported, so it is held until that step has begun.
    """

    def __init__(self, emit: Emit, epoch: Epoch, costs: StepCosts, *, may_hold: bool) -> None:
        """`costs` learns from every step when it is reported."""
        self._emit = emit
        self._epoch = epoch
        self._costs = costs
        self._may_hold = may_hold
        self._held: StepResult | None = None

    def add(self, result: StepResult, *, more: bool) -> None:
        """Report a result now, or hold it if there are `more` steps to compute."""
        self._held = result
        if not (self._may_hold and more):
            self.flush()

    def flush(self) -> None:
        """Report the result that is held, if there is one, and learn from its step."""
        result, self._held = self._held, None
        if result is None:
            return
        self._learn(result.cost)
        deltas = tuple([sequence.delta() for sequence in result.gained])
        started, n_recomputed = tuple(result.started), result.n_recomputed
        self._emit(Step(self._epoch, result.step, deltas, started, n_recomputed=n_recomputed))

    def _learn(self, cost: StepCost) -> None:
        if cost.n_tokens:
            self._costs.computed(cost.n_tokens, cost.computing_s)
        if cost.n_rows:
            self._costs.sampled(cost.n_rows, cost.choosing_s)

    def begin_epoch(self, epoch: Epoch) -> None:
        """Another front listens from now on; held results are of the old epoch."""
        self.flush()
        self._epoch = epoch

    def send(self, message: FromWorker) -> None:
        """A message that is complete."""
        self.flush()
        self._emit(message)

    def nothing_to_do(self, step: int, delta: Delta) -> None:
        """A request is complete before any step."""
        self.send(Step(self._epoch, step, (delta,), (Started(delta.request, 0),)))

    def cancelled(self, request: RequestNo) -> None:
        self.send(Finished(self._epoch, request, FinishReason.CANCELLED))

    def refused(self, request: RequestNo, err: RequestError) -> None:
        self.send(Refused(self._epoch, request, err.code, err.message, err.param))

    def failed(self, computed: Iterable[RequestNo], err: DecodeFailed) -> None:
        """The backend is lost in a step that computed these requests."""
        self.flush()
        requests = tuple(sorted(computed))
        logger.error("decode_failed reason=%s", err)  # the front may end this process at once
        self._emit(EngineFailed(self._epoch, str(err), requests))
