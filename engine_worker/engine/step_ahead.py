"""The next step, begun as soon as the tokens of a step are chosen.

On a device the work between the logits and the next `begin` is time in which nothing is computed.
Where all sequences decode, the next batch is known with the chosen tokens: it has one token more of
each, and the same placeholder rows. So it is begun first. Tokens are accepted, and the step is
planned, while the device computes. A plan that turns out different costs the time of a step, and
changes no token.
"""

import collections.abc
import time
from collections.abc import Callable

from msgspec import Struct

from engine_worker.backend.port import Backend, Batch
from engine_worker.backend.profile import Profile
from engine_worker.engine.step_by_step import StepByStep
from engine_worker.kv import edits
from engine_worker.kv.edits import KvEdit, Remove
from engine_worker.kv.prefix_cache import MIN_MATCH
from engine_worker.scheduling.plan import Decode, Plan
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.text.sequence import Sequence
from gpufc.errors import DecodeFailed, OutOfCells, RequestError


class _Next(Struct):
    """The next step: its edits, and its batch, which gets its tokens when they are chosen. `again`
    are the rows of tokens that are computed again in their places."""

    batch: Batch
    edits: list[KvEdit]
    again: dict[int, int]


class StepAhead(StepByStep):
    """Belongs to the engine thread.

    Invariant: between `begin` and `has_begun` no message is handled, so that no sequence arrives,
    and nothing else uses the backend's cells.
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
        self._pays = profile.steps_ahead
        self._is_quiet = is_quiet
        self._next: _Next | None = None
        self._begun: _Next | None = None
        self._began_at = 0.0

    @property
    def began_at(self) -> float | None:
        return None if self._begun is None else self._began_at

    def has_begun(self, planned: collections.abc.Sequence[KvEdit], batch: Batch) -> bool:
        begun = self._begun
        if begun is not None and begun.batch == batch and begun.edits == planned:
            self._begun = None
            return True
        self.undo()
        return False

    def undo(self) -> None:
        begun, self._begun = self._begun, None
        if begun is None:
            return
        self._backend.logits()  # waits for it
        for slot, position in zip(begun.batch.sequences, begun.batch.positions, strict=True):
            self._backend.remove(slot, position)

    def foresee(self, plan: Plan, batch: Batch) -> None:
        self._next = self._following(plan, batch) if self._pays else None

    def _following(self, plan: Plan, batch: Batch) -> _Next | None:
        """The step after the plan's, if it can be foreseen."""
        scheduler = self._scheduler
        decoding = [work for work in plan.work if isinstance(work, Decode)]
        if len(decoding) != len(scheduler.running):
            return None
        slots = batch.sequences
        positions = [work.next_position for work in plan.work]
        known = [position for position in positions if position is not None]
        if not slots or len(known) != len(slots) or len(slots) <= slots[-1] - slots[0]:
            return None  # in the last case a gap may be closed
        may_stop = not scheduler.waiting and scheduler.slots.keeps_row(len(decoding))
        if not all([_goes_on(work.sequence, may_stop=may_stop) for work in decoding]):
            return None
        again = {row: work for row, work in enumerate(plan.work) if not isinstance(work, Decode)}
        return _Next(
            Batch([], known, slots, batch.outputs, adapters=batch.adapters),
            [Remove(work.slot, work.position) for work in again.values()],
            {row: work.tokens()[0] for row, work in again.items()},
        )

    def begin(self, chosen: collections.abc.Sequence[int | RequestError]) -> DecodeFailed | None:
        following, self._next = self._next, None
        if following is None or not self._is_quiet():
            return None
        again = following.again
        gained = [token for row, token in enumerate(chosen) if row not in again]
        tokens = [again.get(row, token) for row, token in enumerate(chosen)]
        if not self._backend.end_tokens.isdisjoint(gained):
            return None
        batch = following.batch
        batch.tokens = [token for token in tokens if isinstance(token, int)]
        if len(batch.tokens) != len(batch.positions):
            return None  # a request is refused
        self._began_at = time.monotonic()
        try:
            edits.apply(following.edits, self._backend)
            self._backend.begin(batch)
        except OutOfCells:
            return None  # nothing was computed: the next step makes room
        except DecodeFailed as err:
            return err
        self._begun = following
        return None


def _goes_on(sequence: Sequence, *, may_stop: bool) -> bool:
    """Whether the slot of a sequence computes the next token in the next step, unless that is an
    end token, and no logits are needed once it is chosen. `may_stop`: a sequence that ends leaves
    its row if it leaves a prefix, so a stop string or a guide may end it."""
    spec = sequence.spec
    stops = spec.stop or sequence.guide is not None
    leaves_row = may_stop and sequence.reuses_prefix and len(sequence.tokens) > MIN_MATCH
    return (
        sequence.room > 1
        and (leaves_row or not stops)
        and not spec.rules.stop
        and spec.logprobs is None
    )
