"""The request that kills: which sequence is it, and what has it done to be refused.

Pure. One death says nothing about a sequence: everybody in the batch is replayed together. What two
fatal batches have in common without having got past the position of the first one is suspect.
Suspects are tried one at a time, beside those only that were cleared; one that gains a token is
cleared, and one that is the only one of its batch not to have got on is convicted. So a poisonous
request costs three deaths, two if it was alone in the first place, and everybody else goes on.
"""

import hashlib
from collections.abc import Mapping

import msgspec

from gpufc.ids import RequestNo
from supervisor.dispatch.request import GenerationRequest
from supervisor.fleet.exit_reason import ExitReason, Reason

FATAL = frozenset({Reason.CRASHED, Reason.DECODE_FAILED, Reason.HUNG, Reason.EXITED})
"""Ends that a batch may have brought about. A kill from outside, also by the kernel for lack of
memory, and an end that was asked for say nothing about requests."""

QUARANTINE_S = 600.0
MAX_QUARANTINED = 1000


class Suspects:
    """Invariant: `suspects` maps sequences that are still open to the number of tokens they had
    when they died; each leaves by `gained`, `ended` or conviction."""

    def __init__(self) -> None:
        self.suspects: dict[RequestNo, int] = {}
        self._last_batch: dict[RequestNo, int] = {}

    def __bool__(self) -> bool:
        return bool(self.suspects)

    def died(self, batch: Mapping[RequestNo, int], reason: ExitReason) -> RequestNo | None:
        """A worker died with these sequences (number → tokens it had). Returns the convict."""
        if reason.reason not in FATAL or not batch:
            return None
        known = {**self._last_batch, **self.suspects}
        stuck = {no: n for no, n in batch.items() if n <= known.get(no, -1)}
        self._last_batch = dict(batch)
        if len(stuck) == 1:
            (convict,) = stuck
            if convict in self.suspects or len(batch) == 1:
                self.ended(convict)
                return convict
        self.suspects |= stuck
        return None

    def gained(self, number: RequestNo, n_tokens: int) -> bool:
        """A suspect has this many tokens now. True if that clears it."""
        if n_tokens <= self.suspects.get(number, n_tokens):
            return False
        del self.suspects[number]
        return True

    def ended(self, number: RequestNo) -> None:
        """The sequence is no more, however it ended."""
        self.suspects.pop(number, None)
        self._last_batch.pop(number, None)


class Quarantine:
    """Requests that were convicted, by what they ask; bounded in number and time."""

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}

    def add(self, request: GenerationRequest, now: float) -> None:
        """Refuse this request, and every equal one, for `QUARANTINE_S`. `now` is monotonic."""
        self._until = {key: until for key, until in self._until.items() if until > now}
        while len(self._until) >= MAX_QUARANTINED:
            del self._until[next(iter(self._until))]
        self._until[_key(request)] = now + QUARANTINE_S

    def holds(self, request: GenerationRequest, now: float) -> bool:
        """Whether an equal request is being refused."""
        return bool(self._until) and self._until.get(_key(request), now) > now


def _key(request: GenerationRequest) -> bytes:
    """What makes two requests the same: all that reaches the engine but a seed nobody chose."""
    sampling = msgspec.structs.replace(request.sampling, seed=0)
    parts = (
        request.model,
        request.prompts,
        request.n,
        sampling,
        request.max_tokens,
        request.stop,
    )
    return hashlib.sha256(msgspec.msgpack.encode(parts)).digest()
