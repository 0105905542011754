"""Masks of the next step, computed while it is planned and begun."""

from collections.abc import Sequence

from engine_worker.backend.port import Backend
from engine_worker.constraints.guide import Guide
from engine_worker.constraints.step_masks import StepMasks, of_rows


class ForeseenMasks(StepMasks):
    """Invariant: from `foresee` to `take` other threads may use the guides, and the engine thread
    does not. The masks are rows of an array of their own, which the next `foresee` writes again.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._memory_ahead = self._memory

    def foresee(self, guides: Sequence[Guide]) -> None:
        """Begin to compute the masks after the tokens that these guides have read: most likely
        those of the next step, which is planned meanwhile. Does nothing on a CPU.

        A guide that has just forced a token is left out: to look for the next one takes this
        thread's time, and it has more beside the step.
        """
        choosing = [guide for guide in guides if guide.is_choosing] if self._has_time else []
        if choosing:
            self._memory_ahead = of_rows(len(choosing), self._memory_ahead)
            self._compute(self._with_rows(choosing, self._memory_ahead), self._memory_ahead)
