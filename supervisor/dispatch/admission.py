"""How many sequences of a model run and wait at once, and which one starts next.

Pure: counts numbers, knows neither workers nor prompts. Those that were put back start before
those that have not begun, the shortest replay first, so that the first streams go on early; among
the others whose prompt is known it is first come, first served.
"""

import heapq
from collections.abc import Sequence

from gpufc.config import AdmissionConfig
from gpufc.errors import InvalidRequest, Overloaded
from gpufc.ids import RequestNo

LONGEST_RETRY_AFTER_S = 60.0
_FIRST_GUESS_S = 2.0
_PUT_BACK, _FRESH = 0, 1
_WEIGHT = 0.1
"""Of one service time in their moving average: some ten requests are remembered."""


class Admission:
    """The places of one model's group.

    Invariants: a sequence is in one of `preparing`, `ready`, `aside` and `running`; at most `slots`
    run, those beside them not counted; at most `slots + queue_limit` are there at all, unless
    another front had accepted some of them.
    """

    def __init__(self, limits: AdmissionConfig, replicas: int = 1) -> None:
        self._limits = limits
        self.replicas = replicas
        self._preparing: set[RequestNo] = set()
        self._ready: set[RequestNo] = set()
        self._running: set[RequestNo] = set()
        self._aside: set[RequestNo] = set()
        # a heap of `_ready`, and of some that have left it: (rank, size of the replay, number)
        self._order: list[tuple[int, int, RequestNo]] = []
        self._service_s = _FIRST_GUESS_S
        self.n_beside = 0
        """Running sequences that take no slot: on workers that are being replaced."""

    @property
    def slots(self) -> int:
        """How many sequences may run at once."""
        return self._limits.max_concurrent_requests * self.replicas

    @property
    def places(self) -> int:
        """How many may be there at once, running and waiting."""
        return self.slots + self._limits.queue_limit

    @property
    def n_running(self) -> int:
        return len(self._running)

    @property
    def n_waiting(self) -> int:
        return len(self._preparing) + len(self._ready) + len(self._aside)

    def accept(self, numbers: Sequence[RequestNo]) -> None:
        """Take in all sequences of a request, or none of them.

        Raises `InvalidRequest` for more than could ever be taken in, `Overloaded` for more than
        there is room for now.
        """
        if len(numbers) > self.places:
            raise InvalidRequest(
                f"the request asks for {len(numbers)} sequences; at most {self.places} may run and"
                " wait at once",
                param="n",
            )
        missing = self.n_running - self.n_beside + self.n_waiting + len(numbers) - self.places
        if missing > 0:
            raise Overloaded(
                f"the queue is full: {self.n_running} sequences run and {self.n_waiting} wait",
                retry_after_s=self.retry_after_s(missing),
            )
        self._preparing.update(numbers)

    def take_in(self, number: RequestNo, n_tokens: int) -> None:
        """One that another front has accepted, and maybe begun: refusing it now would break a
        promise. It waits before all that have not begun."""
        self._enqueue(number, _PUT_BACK, n_tokens)

    def prepared(self, number: RequestNo) -> None:
        """Its prompt is known: it may start when it is its turn."""
        self._preparing.remove(number)
        self._enqueue(number, _FRESH, 0)

    def next(self) -> RequestNo | None:
        """Whose turn it is, if there is a free slot. `start` makes it run."""
        if len(self._running) - self.n_beside >= self.slots:
            return None
        return self.first()

    def first(self) -> RequestNo | None:
        """Who has waited longest, whether or not there is a free slot."""
        while self._order and self._order[0][2] not in self._ready:
            heapq.heappop(self._order)
        return self._order[0][2] if self._order else None

    def start(self, number: RequestNo) -> None:
        """It has been sent to a worker."""
        self._ready.remove(number)
        self._running.add(number)

    def put_back(self, number: RequestNo, n_tokens: int) -> None:
        """The worker is gone: it waits again, before all that have not begun. `n_tokens` are what
        its replay has to compute."""
        self._running.remove(number)
        self._enqueue(number, _PUT_BACK, n_tokens)

    def set_aside(self, number: RequestNo) -> None:
        """It has to wait for a certain worker: others may go first. Until `come_back`."""
        self._ready.remove(number)
        self._aside.add(number)

    def come_back(self, number: RequestNo, n_tokens: int) -> None:
        """It is in the queue again, where it was."""
        self._aside.remove(number)
        self._enqueue(number, _PUT_BACK, n_tokens)

    def prepare_again(self, number: RequestNo) -> None:
        """Another model is to run it: its prompt is not known."""
        self._ready.remove(number)
        self._preparing.add(number)

    def release(self, number: RequestNo) -> None:
        """It has ended, at whatever stage it was."""
        for stage in (self._running, self._ready, self._aside, self._preparing):
            stage.discard(number)

    def note_service_time(self, seconds: float) -> None:
        """How long one sequence occupied its slot."""
        self._service_s += _WEIGHT * (seconds - self._service_s)

    def retry_after_s(self, n_places: int = 1) -> float:
        """When so many places should be free, going by recent service times; 1 to 60 s."""
        estimate = self._service_s * n_places / self.slots
        return min(LONGEST_RETRY_AFTER_S, max(1.0, estimate))

    def _enqueue(self, number: RequestNo, rank: int, n_tokens: int) -> None:
        self._ready.add(number)
        heapq.heappush(self._order, (rank, n_tokens, number))
