"""How many sequences of a model run and wait at once, and which sequence starts next.

Pure: sees numbers, neither workers nor prompts. Replays start before new sequences, the shortest
replay first, so that the first streams continue early. A new sequence with a prepared prompt starts
when it is its owner's turn (`turns.py`).
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

from gpufc.config import AdmissionConfig
from gpufc.errors import InvalidRequest, Overloaded
from gpufc.ids import RequestNo
from supervisor.dispatch.turns import Turns

LONGEST_RETRY_AFTER_S = 60.0
_FIRST_GUESS_S = 2.0
_WEIGHT = 0.1
"""Weight of one service time in the moving average: it covers about ten requests."""


class Admission:
    """The places of one model's group.

    Invariants: a sequence is in exactly one of `_preparing`, the turns' waiting ones, `_again`,
    `_aside` and `_running`. At most `slots` run, without the `n_beside` ones on workers that are
    being replaced. At most `places` plus `reserve` exist, not counting those taken over from
    another front. `_replays` is `_again` sorted by the size of the replay.
    """

    def __init__(self, limits: AdmissionConfig, replicas: int = 1) -> None:
        self._limits = limits
        self.replicas = replicas
        self._preparing: set[RequestNo] = set()
        self._turns = Turns()
        self._again: dict[RequestNo, int] = {}
        self._aside: set[RequestNo] = set()
        self._running: set[RequestNo] = set()
        self._replays: list[tuple[int, RequestNo]] = []
        self._service_s = _FIRST_GUESS_S
        self.n_beside = 0

    @property
    def slots(self) -> int:
        """How many sequences may run at once."""
        return self._limits.max_concurrent_requests * self.replicas

    @property
    def places(self) -> int:
        """How many sequences may exist at once, running and waiting."""
        return self.slots + self._limits.queue_limit

    @property
    def reserve(self) -> int:
        """Places beyond `places`, for owners with less than an even share: without them, one owner
        could fill the queue and keep all others out."""
        return min(self.slots, self._limits.queue_limit)

    @property
    def n_running(self) -> int:
        return len(self._running)

    @property
    def n_waiting(self) -> int:
        return len(self._preparing) + self._turns.n_waiting + len(self._again) + len(self._aside)

    def accept(self, numbers: Sequence[RequestNo], owner: str) -> None:
        """Take in all sequences of a request, or none of them.

        Raises `InvalidRequest` for more sequences than there are places, `Overloaded` for more
        than fit now.
        """
        if len(numbers) > self.places:
            raise InvalidRequest(
                f"the request asks for {len(numbers)} sequences; at most {self.places} may run and"
                " wait at once",
                param="n",
            )
        self.require_room(len(numbers), owner)
        self._preparing.update(numbers)
        for number in numbers:
            self._turns.enter(number, owner)

    def require_room(self, n_wanted: int, owner: str) -> None:
        """Raises `Overloaded` if so many more sequences of the owner do not fit now."""
        n_present = self.n_running - self.n_beside + self.n_waiting
        missing = n_present + n_wanted - self._room(n_wanted, owner)
        if missing > 0:
            raise Overloaded(
                f"the queue is full: {self.n_running} sequences run and {self.n_waiting} wait",
                retry_after_s=self.retry_after_s(missing),
            )

    def _room(self, n_wanted: int, owner: str) -> int:
        """How many sequences may exist if this owner gets so many more."""
        share = self.places // self._turns.n_owners(owner)
        is_modest = self._turns.n_present(owner) + n_wanted <= share
        return self.places + (self.reserve if is_modest else 0)

    def take_in(self, number: RequestNo, n_tokens: int) -> None:
        """Take in a sequence that another front has accepted. It is never refused, waits before
        all new sequences, and has no known owner."""
        self._turns.enter(number, "")
        self._wait_again(number, n_tokens)

    def prepared(self, number: RequestNo) -> None:
        """Its prompt is prepared: it may start when it is its owner's turn."""
        self._preparing.remove(number)
        self._turns.wait(number)

    def next(self) -> RequestNo | None:
        """The sequence that starts next, if a slot is free. `start` makes it run."""
        if len(self._running) - self.n_beside >= self.slots:
            return None
        return self._replays[0][1] if self._replays else self._turns.first()

    def start(self, number: RequestNo) -> None:
        """It is sent to a worker."""
        self._no_longer_again(number)
        self._turns.begin(number)
        self._running.add(number)

    def put_back(self, number: RequestNo, n_tokens: int) -> None:
        """It has lost its worker, and waits before all new sequences. `n_tokens` is the size of
        its replay."""
        self._running.remove(number)
        self._turns.pause(number)
        self._wait_again(number, n_tokens)

    def set_aside(self, number: RequestNo) -> None:
        """It waits for a certain worker until `come_back`; other sequences may start before it."""
        self._no_longer_again(number)
        self._turns.pause(number)
        self._aside.add(number)

    def come_back(self, number: RequestNo, n_tokens: int) -> None:
        """It is in the queue again, before all new sequences."""
        self._aside.remove(number)
        self._wait_again(number, n_tokens)

    def prepare_again(self, number: RequestNo) -> None:
        """Another model will run it, so its prompt has to be prepared again."""
        self._no_longer_again(number)
        self._turns.pause(number)
        self._preparing.add(number)

    def release(self, number: RequestNo) -> None:
        """It has ended, at any stage."""
        self._no_longer_again(number)
        for stage in (self._running, self._aside, self._preparing):
            stage.discard(number)
        self._turns.leave(number)

    def note_service_time(self, seconds: float) -> None:
        """How long one sequence occupied its slot."""
        self._service_s += _WEIGHT * (seconds - self._service_s)

    def retry_after_s(self, n_places: int = 1) -> float:
        """When so many places should be free, by recent service times: 1 to 60 s."""
        estimate = self._service_s * n_places / self.slots
        return min(LONGEST_RETRY_AFTER_S, max(1.0, estimate))

    def _wait_again(self, number: RequestNo, n_tokens: int) -> None:
        self._again[number] = n_tokens
        insort(self._replays, (n_tokens, number))

    def _no_longer_again(self, number: RequestNo) -> None:
        n_tokens = self._again.pop(number, None)
        if n_tokens is not None:
            del self._replays[bisect_left(self._replays, (n_tokens, number))]
