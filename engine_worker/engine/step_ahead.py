"""The next step, begun as soon as the tokens of a step are chosen.

On a device the work between the logits and the next `begin` is time in which nothing is computed.
Where all sequences decode, the next batch is known with the chosen tokens: it has one token more of
each. So it is begun first, and tokens are accepted, and the step is planned, while the device
computes. A plan that turns out different costs the time of a step, and changes no token.
"""

import collections.abc
import time
from collections.abc import Callable

from engine_worker.backend.port import Backend, Batch
from engine_worker.backend.profile import Profile, Shape
from engine_worker.engine.step_by_step import StepByStep
from engine_worker.kv.edits import KvEdit
from engine_worker.scheduling.plan import Decode, Plan
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.text.sequence import Sequence
from gpufc.errors import DecodeFailed, OutOfCells, RequestError


class StepAhead(StepByStep):
    """Belongs to the engine thread.

    Invariant: between `begin` and `has_begun` no message is handled, so that no sequence ends or
    arrives, and nothing else uses the backend's cells.
    """

    def __init__(
        self,
        backend: Backend,
        scheduler: Scheduler,
        profile: Profile,
        is_quiet: Callable[[], bool],
    ) -> None:
        """`is_quiet` tells that neither messages nor drafts nor embeddings come before the next
        step."""
        self._backend = backend
        self._scheduler = scheduler
        self._pays = profile.shape is Shape.FIXED
        self._is_quiet = is_quiet
        self._next: Batch | None = None  # that of the next step, without its tokens
        self._begun: Batch | None = None
        self._began_at = 0.0
        self._error: DecodeFailed | None = None

    @property
    def began_at(self) -> float | None:
        return None if self._begun is None else self._began_at

    def has_begun(self, edits: collections.abc.Sequence[KvEdit], batch: Batch) -> bool:
        begun, error = self._begun, self._error
        if error is not None:
            raise error
        if begun is not None and not edits and begun == batch:
            self._begun = None
            return True
        self._undo()
        return False

    def _undo(self) -> None:
        begun, self._begun = self._begun, None
        if begun is None:
            return
        self._backend.logits()  # waits for it
        for slot, position in zip(begun.sequences, begun.positions, strict=True):
            self._backend.remove(slot, position)

    def foresee(self, plan: Plan, batch: Batch) -> None:
        self._next = None
        if not self._pays or len(plan.work) != len(self._scheduler.running):
            return
        slots = batch.sequences
        is_gapless = slots and slots[-1] - slots[0] == len(slots) - 1
        if is_gapless and all(
            isinstance(work, Decode) and work.is_one_token and _goes_on(work.sequence)
            for work in plan.work
        ):
            positions = [position + 1 for position in batch.positions]
            self._next = Batch([], positions, slots, batch.outputs, adapters=batch.adapters)

    def begin(self, chosen: collections.abc.Sequence[int | RequestError]) -> None:
        batch, self._next = self._next, None
        if batch is None or not self._is_quiet():
            return
        tokens = [token for token in chosen if isinstance(token, int)]
        if len(tokens) != len(batch.positions) or not self._backend.end_tokens.isdisjoint(tokens):
            return
        batch.tokens = tokens
        self._began_at = time.monotonic()
        try:
            self._backend.begin(batch)
        except OutOfCells:
            return  # nothing was computed: the next step makes room
        except DecodeFailed as err:
            self._error = err  # the tokens of this step come first
            return
        self._begun = batch


def _goes_on(sequence: Sequence) -> bool:
    """Whether a sequence gains another token after the next one, unless that is an end token, and
    needs no logits once its token is chosen."""
    spec = sequence.spec
    may_stop = spec.stop or spec.rules.stop or sequence.guide is not None
    return sequence.room > 1 and not may_stop and spec.logprobs is None
