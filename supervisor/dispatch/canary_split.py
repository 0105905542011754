"""The requests of one model while a canary runs: the side of each, and what became of it. Pure."""

from supervisor.dispatch.ledger import Outcome as End
from supervisor.dispatch.pool import WorkerPool
from supervisor.dispatch.stream import ResponseStream
from supervisor.fleet.port import WorkerHandle
from supervisor.routing.canary import Canary, Outcome, Side


class CanarySplit:
    """Owned by the model's group, from `began` until the canary's worker drains or takes over.

    A request has one side, for all its sequences. A request that has begun stays with its model.
    """

    def __init__(self) -> None:
        self._canary: Canary | None = None
        self._before: str | None = None
        self.fingerprint: str | None = None
        """The canary's; None without one."""
        self._sides: dict[ResponseStream, Side] = {}

    def began(self, worker: WorkerHandle, canary: Canary, before: str | None) -> None:
        """This worker is a canary; `before` is the fingerprint of the model before."""
        self._canary, self._before = canary, before
        self.fingerprint = worker.facts.fingerprint
        self._sides.clear()

    def drains(self, worker: WorkerHandle) -> None:
        """A worker of either side gets nothing new: the canary is over."""
        if worker.facts.fingerprint in {self.fingerprint, self._before}:
            self._canary = self.fingerprint = self._before = None
            self._sides.clear()

    def wanted(self, stream: ResponseStream, pool: WorkerPool) -> str | None:
        """The fingerprint for a request that has not begun; None for any.

        A canary without room gets less than its share, and no request waits for it, except for its
        other choices. While no worker of the model before is there, the canary gets all requests.
        """
        if self._canary is None:
            return None
        side = self._sides.get(stream)
        if side is None:
            side = Side.STABLE if _is_sent(stream) else self._canary.side()
            self._sides[stream] = side
        if side is Side.CANARY and self.fingerprint is not None:
            has_one = pool.has_open(self.fingerprint)
            if has_one and (_is_sent(stream) or pool.has_open_room(self.fingerprint)):
                return self.fingerprint
            self._sides[stream] = Side.STABLE
        is_there = self._before is not None and pool.has_open(self._before)
        return self._before if is_there else None

    def holds(self, stream: ResponseStream) -> bool:
        """Whether a request waits for room at the canary, where another choice of it is."""
        return self._sides.get(stream) is Side.CANARY

    def ended(self, stream: ResponseStream) -> None:
        """A request has ended. Refusals and clients that left say nothing about a model."""
        side = self._sides.pop(stream, None)
        if self._canary is None or side is None:
            return
        if stream.outcome in {End.CANCELLED, End.REJECTED}:
            return
        timings, n_tokens = stream.timings, stream.usage.completion
        has_token = timings.first_token_at is not None
        outcome = Outcome(
            ok=stream.outcome is End.SUCCEEDED,
            first_s=timings.prompt_s if has_token else None,
            token_s=timings.generation_s / (n_tokens - 1) if has_token and n_tokens > 1 else None,
        )
        self._canary.ended(side, outcome)


def _is_sent(stream: ResponseStream) -> bool:
    """Whether a choice of a request has gone to a worker."""
    return any(log.epochs for log in stream.logs)
