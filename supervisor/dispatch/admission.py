"""How many sequences of a model run and wait at once, and which sequence starts next.

Pure: sees numbers, neither workers nor prompts. Replays start before new sequences, the shortest
replay first, so that the first streams continue early. A new sequence with a prepared prompt starts
when it is its owner's turn (`turns.py`).

An abandoned sequence belongs to a durable request that no client reads. It starts after all other
sequences, and gives its slot up if abandoned ones run in more than half of the slots.

A yielding sequence belongs to a principal that comes after the others. It starts after theirs, and
gives its slot up when one of theirs waits for it.

An owner that waits and has no slot gets one at once from the owner with the most: it starts as soon
as the worker is told to stop the other sequence, and not a step later, when that has happened. A
sequence that has given its slot up to another owner, and runs again, keeps it for a few tokens at
least.
"""

from collections.abc import Callable, Sequence

from gpufc.config import AdmissionConfig
from gpufc.errors import InvalidRequest, Overloaded
from gpufc.ids import RequestNo
from supervisor.dispatch.line import Line

LONGEST_RETRY_AFTER_S = 600.0
LEAST_GAIN = 16
"""Tokens that a sequence makes between two times it gives its slot up to another owner. Otherwise
an owner's short requests, one after another, could keep it from any token."""

_FIRST_GUESS_S = 2.0
_WEIGHT = 0.1
"""Weight of one service time in the moving average: it covers about ten requests."""


class Admission:
    """The places of one model's group.

    Invariants: a sequence is in exactly one line, and in exactly one of `_preparing`, its line's
    waiting ones, `_aside` and `_running`. At most `slots` run, without the `n_beside` ones on
    workers that are being replaced, and without `_sharing`. At most `places` plus `reserve` exist,
    not counting those taken over from another front, nor abandoned ones beyond their `share`.
    `_pausing` are running ones that give their slot up, `_sharing` those of them that do so to
    another owner, and `_promised` those of these whose slot has not been taken yet.

    `_gave` are those that have given their slot up to another owner, with the tokens they had when
    they last started after that. `defers` tells that an owner without a slot waits for one of these
    to make tokens: then `to_pause` is to be asked again.

    `forecast` tells when so many running sequences will have ended, in seconds; None if unknown.
    `n_made` tells how many tokens a sequence has.
    """

    def __init__(self, limits: AdmissionConfig, replicas: int = 1) -> None:
        self._limits = limits
        self.replicas = replicas
        self._preparing: set[RequestNo] = set()
        self._attended = Line()
        self._yielding = Line()
        self._abandoned = Line()
        self._yields: set[RequestNo] = set()
        self._left: set[RequestNo] = set()
        self._pausing: set[RequestNo] = set()
        self._sharing: set[RequestNo] = set()
        self._promised: set[RequestNo] = set()
        self._gave: dict[RequestNo, int] = {}
        self.defers = False
        self._aside: set[RequestNo] = set()
        self._running: set[RequestNo] = set()
        self._service_s = _FIRST_GUESS_S
        self.n_beside = 0
        self.forecast: Callable[[int], float | None] = lambda _n_places: None
        self.n_made: Callable[[RequestNo], int] = lambda _number: 0

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
    def share(self) -> int:
        """How many of the places abandoned sequences may take from others."""
        return max(1, self.places // 2)

    @property
    def n_abandoned(self) -> int:
        return len(self._left)

    @property
    def n_running(self) -> int:
        return len(self._running)

    @property
    def _n_within(self) -> int:
        """Running ones that are not on workers that are being replaced."""
        return len(self._running) - self.n_beside

    @property
    def _n_taken(self) -> int:
        """Slots that are not free. One that a sequence shares is taken once: by the sequence until
        another one starts in it."""
        return self._n_within - len(self._sharing) + len(self._promised)

    @property
    def _n_coming(self) -> int:
        """Slots that sequences on their way out leave to waiting ones."""
        return len(self._pausing) - len(self._sharing) + len(self._promised)

    @property
    def n_waiting(self) -> int:
        ready = sum(line.n_waiting for line in self._lines)
        return len(self._preparing) + ready + len(self._aside)

    @property
    def _lines(self) -> tuple[Line, ...]:
        """All lines, in the order of their turns."""
        return self._attended, self._yielding, self._abandoned

    def accept(self, numbers: Sequence[RequestNo], owner: str, *, yields: bool = False) -> None:
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
        if yields:
            self._yields.update(numbers)
        for number in numbers:
            self._line(number).turns.enter(number, owner)

    def require_room(self, n_wanted: int, owner: str) -> None:
        """Raises `Overloaded` if so many more sequences of the owner do not fit now."""
        n_present = self._n_within + self.n_waiting
        n_present -= max(0, self.n_abandoned - self.share)
        missing = n_present + n_wanted - self._room(n_wanted, owner)
        if missing > 0:
            raise Overloaded(
                f"the queue is full: {self.n_running} sequences run and {self.n_waiting} wait",
                retry_after_s=self.retry_after_s(missing),
            )

    def _room(self, n_wanted: int, owner: str) -> int:
        """How many sequences may exist if this owner gets so many more."""
        turns = self._attended.turns
        n_present = sum(line.turns.n_present(owner) for line in self._lines)
        is_modest = n_present + n_wanted <= self.places // turns.n_owners(owner)
        return self.places + (self.reserve if is_modest else 0)

    def require_share(self) -> None:
        """Raises `Overloaded` if another durable request could not be abandoned."""
        if self.n_abandoned >= self.share:
            raise Overloaded(
                f"{self.n_abandoned} sequences of durable requests run or wait without a client",
                retry_after_s=self.retry_after_s(),
            )

    def abandon(self, number: RequestNo) -> None:
        """No client reads it any more."""
        if number not in self._left:
            line = self._line(number)
            self._left.add(number)
            line.move(number, self._abandoned, runs=number in self._running)

    def attend(self, number: RequestNo) -> None:
        """A client reads it again."""
        if number in self._left:
            self._left.remove(number)
            self._abandoned.move(number, self._line(number), runs=number in self._running)

    def _line(self, number: RequestNo) -> Line:
        if number in self._left:
            return self._abandoned
        return self._yielding if number in self._yields else self._attended

    def take_in(self, number: RequestNo, n_tokens: int, owner: str = "") -> None:
        """Take in a sequence that another front has accepted. It is never refused, and waits before
        all new sequences. The owner is empty if it is not known."""
        self._attended.turns.enter(number, owner)
        self._attended.wait_again(number, n_tokens)

    def take_in_unprepared(self, number: RequestNo, owner: str = "") -> None:
        """As `take_in`, for a sequence whose prompt has yet to be prepared. It waits among new
        ones then."""
        self._attended.turns.enter(number, owner)
        self._preparing.add(number)

    def prepared(self, number: RequestNo, later: int = 0) -> None:
        """Its prompt is prepared: it may start when it is its owner's turn, among the owner's as if
        it had come `later` by so many sequences."""
        self._preparing.remove(number)
        turns = self._line(number).turns
        turns.shift(number, later)
        turns.wait(number)

    def next(self) -> RequestNo | None:
        """The sequence that starts next, if a slot is free. `start` makes it run."""
        if self._n_within - len(self._sharing) >= self.slots:
            return None
        firsts = (line.first() for line in self._lines)
        return next((one for one in firsts if one is not None), None)

    def to_pause(self, *, is_full: bool = False) -> RequestNo | None:
        """A sequence that gives its slot up to one that waits, if one should: an abandoned one, or
        else a yielding one, or else one of the owner with the most.

        Each call names another one; it is put back once it has stopped. `is_full` tells that no
        worker has room: so it is with fewer than `slots` when a replica is not there.
        """
        self.defers = False
        if self._n_taken < self.slots and not is_full:
            return None
        youngest = self._to_yield()
        if youngest is None:
            youngest = self._to_share()
        if youngest is not None:
            self._pausing.add(youngest)
        return youngest

    def _to_yield(self) -> RequestNo | None:
        abandoned = self._running & self._left
        n_over = max(0, len(abandoned) - min(self.slots, self._n_taken) // 2)
        n_local = self._attended.n_waiting
        n_wanted = min(n_over, n_local + self._yielding.n_waiting)
        if n_wanted > len(self._pausing & abandoned):
            candidates = abandoned
        else:
            candidates = (self._running & self._yields) - self._left
            if n_local <= self._n_coming:
                return None
        return max(candidates - self._pausing, default=None)

    def _to_share(self) -> RequestNo | None:
        """The youngest sequence of the owner with the most slots, for an owner without any. When
        it has stopped, it waits for its owner's turn and not as a replay, which would take the slot
        back."""
        turns = self._attended.turns
        if turns.n_starved <= self._n_coming:
            return None
        crowd = turns.crowding(self._pausing)
        youngest = max(filter(self._may_give, crowd), default=None)
        if youngest is not None:
            self._sharing.add(youngest)
            self._promised.add(youngest)
        self.defers = bool(crowd) and youngest is None
        return youngest

    def _may_give(self, number: RequestNo) -> bool:
        """Whether it has made enough tokens since it last gave its slot up to another owner."""
        since = self._gave.get(number)
        return since is None or self.n_made(number) - since >= LEAST_GAIN

    def is_sharing(self, number: RequestNo) -> bool:
        """Whether another owner's sequence may have its slot before its worker has stopped it."""
        return number in self._sharing

    def start(self, number: RequestNo) -> None:
        """It is sent to a worker."""
        if self._promised:
            self._promised.pop()
        line = self._line(number)
        line.no_longer_again(number)
        line.turns.begin(number)
        self._running.add(number)
        if number in self._gave:
            self._gave[number] = self.n_made(number)

    def put_back(self, number: RequestNo, n_tokens: int) -> None:
        """It has lost its worker, and waits before all new sequences. `n_tokens` is the size of
        its replay."""
        self._running.remove(number)
        self._pausing.discard(number)
        line = self._line(number)
        line.turns.pause(number)
        self._promised.discard(number)
        if number in self._sharing:
            self._sharing.remove(number)
            self._gave[number] = 0
            line.turns.wait(number)
        else:
            line.wait_again(number, n_tokens)

    def set_aside(self, number: RequestNo) -> None:
        """It waits for a certain worker until `come_back`; other sequences may start before it."""
        line = self._line(number)
        line.no_longer_again(number)
        line.turns.pause(number)
        self._aside.add(number)

    def is_aside(self, number: RequestNo) -> bool:
        """Whether it waits for a certain worker."""
        return number in self._aside

    def come_back(self, number: RequestNo, n_tokens: int) -> None:
        """It is in the queue again, before all new sequences."""
        self._aside.remove(number)
        self._line(number).wait_again(number, n_tokens)

    def prepare_again(self, number: RequestNo) -> None:
        """Another model will run it, so its prompt has to be prepared again."""
        line = self._line(number)
        line.no_longer_again(number)
        line.turns.pause(number)
        self._preparing.add(number)

    def release(self, number: RequestNo) -> None:
        """It has ended, at any stage."""
        line = self._line(number)
        line.no_longer_again(number)
        line.turns.leave(number)
        for kind in (self._yields, self._left, self._pausing, self._sharing, self._promised):
            kind.discard(number)
        self._gave.pop(number, None)
        for stage in (self._running, self._aside, self._preparing):
            stage.discard(number)

    def note_service_time(self, seconds: float) -> None:
        """How long one sequence occupied its slot."""
        self._service_s += _WEIGHT * (seconds - self._service_s)

    def retry_after_s(self, n_places: int = 1) -> float:
        """When so many places should be free: by the tokens that are left, or else by recent
        service times. 1 to 600 s."""
        estimate = self.forecast(n_places)
        if estimate is None:
            estimate = self._service_s * n_places / self.slots
        return min(LONGEST_RETRY_AFTER_S, max(1.0, estimate))
