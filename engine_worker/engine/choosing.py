"""The choice of a step's tokens, where guides check what was drawn freely."""

from collections.abc import Iterable
from collections.abc import Sequence as Many

from engine_worker.backend.candidates import MaskWords
from engine_worker.backend.port import Backend, Logits
from engine_worker.constraints.step_masks import StepMasks
from engine_worker.engine.batching import guided, guides_ahead, padding_pick, picks
from engine_worker.sampling.batch import Pick, Prepared, prepare, sampler_for, second_choice
from engine_worker.scheduling.plan import Plan
from engine_worker.text.sequence import Sequence
from gpufc.errors import RequestError


class Choosing:
    """Belongs to the engine thread.

    A guided row is drawn like a free one, and its guide is asked whether the token is allowed: most
    tokens are, and need no mask. A refused one is drawn again within the mask. A device leaves time
    to have all masks by then, a CPU computes those of refused rows. The token is the same, short of
    a limit of the grammar: a mask may meet one that a check alone would not.
    """

    def __init__(self, backend: Backend, masks: StepMasks) -> None:
        self._sampler = sampler_for(backend)
        self._masks = masks
        self._padding = padding_pick(backend.facts.n_vocab)
        self._is_guided = False  # any row of the prepared step

    def foresee(self, gained: Iterable[Sequence]) -> None:
        """Begin the masks that the next step needs, after these sequences have gained tokens."""
        self._masks.foresee(guides_ahead(gained))

    def begin(self, plan: Plan) -> None:
        """Begin the masks that the plan needs. Called once its step has begun."""
        self._masks.begin(guided(plan))

    def prepare(self, plan: Plan) -> Prepared:
        """The part of the choice that needs no logits."""
        taken, padding = self._masks.take(), self._padding
        self._is_guided, masks = bool(taken), iter(taken)
        return prepare([pick for work in plan.work for pick in picks(work, padding, masks)])

    def choose(self, logits: Logits, prepared: Prepared) -> list[int | RequestError]:
        """A token for each row of the step that was prepared last, as `BatchSampler.choose` gives
        it."""
        chosen = self._sampler.choose(logits, prepared)
        if self._is_guided and (refused := _refused(prepared.picks, chosen)):
            again = second_choice(prepared, self._masks_of(refused))
            for row, token in zip(again.rows, self._sampler.choose(logits, again), strict=True):
                chosen[row] = token
        return chosen

    def _masks_of(self, refused: dict[int, Pick]) -> dict[int, MaskWords]:
        """The masks of refused rows, by row: those ahead, and the others at once."""
        masks = {row: pick.mask for row, pick in refused.items() if pick.mask is not None}
        missing = {
            row: pick.guide
            for row, pick in refused.items()
            if row not in masks and pick.guide is not None
        }
        if missing:
            computed = self._masks.compute(list(missing.values()))
            masks.update(zip(missing, computed, strict=True))
        return {row: masks[row] for row in refused}


def _refused(given: Many[Pick], chosen: Many[int | RequestError]) -> dict[int, Pick]:
    """The rows with a token that is to be drawn again."""
    refused = {}
    for row, (pick, token) in enumerate(zip(given, chosen, strict=True)):
        if pick.guide is None or isinstance(token, RequestError):
            continue
        if pick.refuses(token):
            refused[row] = pick
    return refused
