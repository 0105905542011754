"""The request that kills: which one is it, and how long is it refused.

Pure. One death says nothing about a request: everybody in the batch is replayed together. What
two fatal batches have in common without having got on in between is suspect. Suspects are tried
one at a time with nothing beside them: one that gains a token is cleared, one that dies is
convicted. So a poisonous request costs three deaths, two if it was alone in the first place, and
everybody else goes on.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from gpufc.ids import RequestNo
from supervisor.dispatch.request import GenerationRequest
from supervisor.fleet.exit_reason import ExitReason, Reason

FATAL = frozenset({Reason.CRASHED, Reason.DECODE_FAILED, Reason.HUNG, Reason.EXITED})
"""Ends that a batch may have brought about. A kill from outside, also by the kernel for lack of
memory, and an end that was asked for say nothing about requests."""


def incriminates(reason: ExitReason) -> bool:
    """Whether an end may be the doing of what was computed. Memory that ran out, also a device's
    (where it aborts the process), is everybody's."""
    return reason.reason in FATAL and "out of memory" not in reason.detail.lower()


MEMORY_S = 600.0
MAX_REMEMBERED = 1000
MAX_DEATHS = 64
"""Of one request. Fewer latch `failed`."""

Fingerprint = bytes


class Victim(Struct, frozen=True):
    """A sequence that a worker was computing when it died. `what` is equal for equal requests, so
    that one whose client leaves and asks again is known again."""

    no: RequestNo
    what: Fingerprint
    n_tokens: int


class Suspects:
    """Invariant: `open` maps suspects that are still there to the tokens they had when they died;
    each leaves it by `gained`, `left` or a conviction."""

    def __init__(self) -> None:
        self.open: dict[RequestNo, int] = {}
        self.n_deaths_explained = 0
        """By the latest conviction and by none before: deaths in which the convict was."""
        self._died_at: dict[Fingerprint, tuple[int, float]] = {}
        self._deaths: dict[Fingerprint, deque[int]] = {}
        self._unexplained: deque[int] = deque(maxlen=MAX_REMEMBERED)
        self._n_deaths = 0

    def __bool__(self) -> bool:
        return bool(self.open)

    def died(self, batch: Sequence[Victim], reason: ExitReason, now: float) -> RequestNo | None:
        """A worker died with these sequences. Returns the convict; `now` is monotonic.

        A conviction explains the deaths before it: the others are suspects no longer.
        """
        if not incriminates(reason):
            return None
        stuck = [victim for victim in batch if victim.n_tokens <= self._known(victim.what, now)]
        self._remember(batch, now)
        if stuck and len(batch) == 1:
            self.open.clear()
            self._explain(self._deaths.pop(stuck[0].what))
            return stuck[0].no
        self.open |= {victim.no: victim.n_tokens for victim in stuck}
        return None

    def gained(self, number: RequestNo, n_tokens: int) -> bool:
        """A sequence has this many tokens now. True if that clears a suspect."""
        if n_tokens <= self.open.get(number, n_tokens):
            return False
        del self.open[number]
        return True

    def left(self, number: RequestNo) -> None:
        """The sequence is no more. What it died of is remembered: its client may ask again."""
        self.open.pop(number, None)

    def _known(self, what: Fingerprint, now: float) -> int:
        n_tokens, until = self._died_at.get(what, (-1, now))
        return n_tokens if until > now else -1

    def _remember(self, batch: Sequence[Victim], now: float) -> None:
        self._n_deaths += 1
        self._unexplained.append(self._n_deaths)
        for victim in batch:
            self._died_at.pop(victim.what, None)  # to the end of the order
            self._died_at[victim.what] = (victim.n_tokens, now + MEMORY_S)
            deaths = self._deaths.setdefault(victim.what, deque(maxlen=MAX_DEATHS))
            deaths.append(self._n_deaths)
        while len(self._died_at) > MAX_REMEMBERED:
            oldest = next(iter(self._died_at))
            del self._died_at[oldest]
            self._deaths.pop(oldest, None)

    def _explain(self, deaths: Iterable[int]) -> None:
        explained = set(deaths) & set(self._unexplained)
        self.n_deaths_explained = len(explained)
        still = (death for death in self._unexplained if death not in explained)
        self._unexplained = deque(still, MAX_REMEMBERED)


class Quarantine:
    """Requests that were convicted, by what they ask; bounded in number and time."""

    def __init__(self) -> None:
        self._until: dict[Fingerprint, float] = {}

    def add(self, request: GenerationRequest, now: float) -> None:
        """Refuse this request, and every equal one, for `MEMORY_S`. `now` is monotonic."""
        self._until = {key: until for key, until in self._until.items() if until > now}
        while len(self._until) >= MAX_REMEMBERED:
            del self._until[next(iter(self._until))]
        self._until[fingerprint(request)] = now + MEMORY_S

    def holds(self, request: GenerationRequest, now: float) -> bool:
        """Whether an equal request is being refused."""
        return bool(self._until) and self._until.get(fingerprint(request), now) > now


def fingerprint(request: GenerationRequest, index: int = 0) -> Fingerprint:
    """What makes two requests the same: all that reaches the engine but the seed, which is often
    nobody's choice. `index` tells a request's sequences apart."""
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
