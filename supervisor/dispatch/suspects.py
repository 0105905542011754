"""Which request kills workers, and how long it is refused. Pure.

One death says nothing about a request: the whole batch is replayed. A sequence that was in two
fatal batches without a new token in between is a suspect. Suspects run one at a time, alone on
their worker: a suspect that gains a token is cleared, a suspect that dies is accused. An accusation
becomes a conviction once the engine has computed something else: the trial of a worker, or a token
of another sequence. So a poisonous request costs three deaths, or two if it was alone the first
time, all other requests go on, and a sick engine convicts no request.

Poisonous requests come in groups. A sequence that has died in company of a convict is suspect at
its next death, even if it has new tokens. So each further poisonous request costs two deaths.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from gpufc.ids import RequestNo
from supervisor.dispatch.request import GenerationRequest
from supervisor.fleet.exit_reason import ExitReason, Reason

FATAL = frozenset({Reason.CRASHED, Reason.DECODE_FAILED, Reason.HUNG, Reason.EXITED})
"""Ends that a batch may have caused. A kill from outside, the kernel's out-of-memory kill included,
and an end that was asked for say nothing about requests."""


def incriminates(reason: ExitReason) -> bool:
    """Whether the batch may have caused this end. Lack of memory is no single request's fault, also
    where a device's lack of memory aborts the process. A worker that hangs at a question computes
    its batch nevertheless."""
    is_no_memory = "out of memory" in reason.detail.lower()
    return reason.reason in FATAL and not is_no_memory and not reason.questions


MEMORY_S = 600.0
MAX_REMEMBERED = 1000
MAX_IN_A_ROW = 3
"""Accusations of so many different requests without a token in between accuse the engine."""
MAX_DEATHS = 64
"""Deaths remembered for one request. The fleet gives up after fewer."""

Fingerprint = bytes


class Victim(Struct, frozen=True):
    """A sequence that a worker was computing when it died. Equal requests have an equal
    `fingerprint`, so a request that is sent again is recognized."""

    no: RequestNo
    fingerprint: Fingerprint
    n_tokens: int


class Judgement(Struct, frozen=True):
    """What evidence makes of the accusations. `convicts` maps each convict to the number of deaths
    that it explains and no earlier convict does. With `is_engine_sick` no conviction stands, not
    even an earlier one."""

    convicts: Mapping[RequestNo, int] = {}
    acquitted: Sequence[RequestNo] = ()
    is_engine_sick: bool = False


class Suspects:
    """Invariants: `open` maps each living suspect to the number of its tokens at its last death; it
    leaves by `gained`, `left`, an accusation or a conviction. An accused sequence leaves by `left`
    or a judgement, and must not run before.
    """

    def __init__(self) -> None:
        self.open: dict[RequestNo, int] = {}
        self.accused: dict[RequestNo, Fingerprint] = {}
        self._in_a_row: set[Fingerprint] = set()
        """Requests convicted since the last token of any sequence."""
        self._company: set[Fingerprint] = set()
        """Requests that had died when a convict was found; a subset of `_died_at`."""
        self._died_at: dict[Fingerprint, tuple[int, float]] = {}
        self._deaths: dict[Fingerprint, deque[int]] = {}
        self._unexplained: deque[int] = deque(maxlen=MAX_REMEMBERED)
        self._n_deaths = 0

    def __bool__(self) -> bool:
        return bool(self.open)

    @property
    def needs_tokens(self) -> bool:
        """Whether `token_gained` would change anything."""
        return bool(self.accused or self._in_a_row)

    def died(
        self, batch: Sequence[Victim], reason: ExitReason, now: float, *, in_company: bool = False
    ) -> RequestNo | None:
        """A worker died with these sequences. Returns the accused; `now` is monotonic.

        `in_company`: it did something else as well, which may have killed it."""
        return self.blame(batch, now, in_company=in_company) if incriminates(reason) else None

    def blame(
        self, batch: Sequence[Victim], now: float, *, in_company: bool = False
    ) -> RequestNo | None:
        """One of these has caused a death. Returns the accused."""
        known = {victim.no: self._known(victim.fingerprint, now) for victim in batch}
        stuck = [victim for victim in batch if victim.n_tokens <= known[victim.no]]
        suspect = [
            victim
            for victim in batch
            if victim in stuck or (known[victim.no] >= 0 and victim.fingerprint in self._company)
        ]
        self._remember(batch, now)
        if stuck and len(batch) == 1 and not in_company:
            self.open.pop(stuck[0].no, None)
            self.accused[stuck[0].no] = stuck[0].fingerprint
            return stuck[0].no
        self.open |= {victim.no: victim.n_tokens for victim in suspect}
        return None

    def trial_passed(self) -> Judgement:
        """A worker has computed its trial since the accusations.

        Different requests that are convicted one after the other while no sequence gains a token
        are more than a coincidence: an engine that computes only its trial is sick.
        """
        if not self.accused:
            return Judgement()
        if len(self._in_a_row | set(self.accused.values())) >= MAX_IN_A_ROW:
            acquitted = tuple(self.accused)
            self.accused.clear()
            return Judgement(acquitted=acquitted, is_engine_sick=True)
        self._in_a_row |= set(self.accused.values())
        return Judgement(self._convict(tuple(self.accused)))

    def token_gained(self, number: RequestNo) -> Judgement:
        """This sequence has a new token: the engine can compute something else."""
        self._in_a_row.clear()
        return Judgement(self._convict([no for no in self.accused if no != number]))

    def forget(self) -> Judgement:
        """The engine is another one: nothing is known about requests."""
        acquitted = tuple(self.accused)
        for known in (self.open, self.accused, self._in_a_row, self._died_at, self._deaths):
            known.clear()
        self._company.clear()
        self._unexplained.clear()
        return Judgement(acquitted=acquitted)

    def _convict(self, numbers: Iterable[RequestNo]) -> dict[RequestNo, int]:
        """Convictions explain the deaths before them, so they clear all other suspects."""
        convicts = {no: self._explain(self.accused.pop(no)) for no in numbers}
        if convicts:
            self.open.clear()
            self._company = set(self._died_at)
        return convicts

    def gained(self, number: RequestNo, n_tokens: int) -> bool:
        """A sequence has this many tokens now. True if that clears it as a suspect."""
        if n_tokens <= self.open.get(number, n_tokens):
            return False
        del self.open[number]
        return True

    def cleared(self, known: Fingerprint) -> None:
        """A prompt was prepared: no death of the past is held against an equal one."""
        self._died_at.pop(known, None)
        self._deaths.pop(known, None)
        self._company.discard(known)

    def left(self, number: RequestNo) -> None:
        """The sequence has ended. Its deaths stay remembered, in case the request is sent again."""
        self.open.pop(number, None)
        self.accused.pop(number, None)

    def _known(self, known: Fingerprint, now: float) -> int:
        n_tokens, until = self._died_at.get(known, (-1, now))
        return n_tokens if until > now else -1

    def _remember(self, batch: Sequence[Victim], now: float) -> None:
        self._n_deaths += 1
        self._unexplained.append(self._n_deaths)
        for victim in batch:
            self._died_at.pop(victim.fingerprint, None)  # moves it to the end of the order
            self._died_at[victim.fingerprint] = (victim.n_tokens, now + MEMORY_S)
            deaths = self._deaths.setdefault(victim.fingerprint, deque(maxlen=MAX_DEATHS))
            deaths.append(self._n_deaths)
        while len(self._died_at) > MAX_REMEMBERED:
            oldest = next(iter(self._died_at))
            del self._died_at[oldest]
            self._deaths.pop(oldest, None)
            self._company.discard(oldest)

    def _explain(self, convict: Fingerprint) -> int:
        """How many deaths this convict explains and no earlier one."""
        explained = set(self._deaths.pop(convict, ())) & set(self._unexplained)
        still = (death for death in self._unexplained if death not in explained)
        self._unexplained = deque(still, MAX_REMEMBERED)
        return len(explained)


class Quarantine:
    """Convicted requests by their content, bounded in number and time."""

    def __init__(self) -> None:
        self._until: dict[Fingerprint, float] = {}

    def add(self, request: GenerationRequest, now: float) -> None:
        """Refuse this request, and every equal one, for `MEMORY_S`. `now` is monotonic."""
        self._until = {key: until for key, until in self._until.items() if until > now}
        while len(self._until) >= MAX_REMEMBERED:
            del self._until[next(iter(self._until))]
        self._until[fingerprint(request)] = now + MEMORY_S

    def clear(self) -> None:
        """Refuse no request any more."""
        self._until.clear()

    def holds(self, request: GenerationRequest, now: float) -> bool:
        """Whether an equal request is being refused."""
        return bool(self._until) and self._until.get(fingerprint(request), now) > now


def fingerprint(request: GenerationRequest, index: int = 0) -> Fingerprint:
    """Equal for equal requests: a digest of all that reaches the engine except the seed, which is
    often random. `index` tells a request's sequences apart."""
    sampling = msgspec.structs.replace(request.sampling, seed=0)
    parts = (
        request.model,
        request.prompts,
        request.n,
        sampling,
        request.max_tokens,
        request.stop,
        index,
    )
    return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()
