"""How many drafted tokens a step verifies: as many as pay, mostly none.

Pure. A step in which sequence i gains e_i tokens and that takes t seconds has the sequences at
rates e_i / t. Drafts raise e_i by chance and t for everybody; chosen are those that maximise the
product of all rates, which for one sequence is its tokens per second, and for many keeps one that
copies from slowing those that do not.
"""

from collections.abc import Sequence

from engine_worker.drafting import Drafter, DraftRequest
from engine_worker.step_costs import StepCosts
from gpufc.ids import RequestNo


class Speculation:
    """A drafter, and for each sequence how often its drafts were right.

    It need not be told what became of a draft: the next request's tokens show it. Drafts that are
    not worth verifying are compared as well, so nothing has to be tried out to learn that the text
    has turned repetitive.
    """

    def __init__(self, drafter: Drafter, costs: StepCosts) -> None:
        self._drafter = drafter
        self._costs = costs

    def draft_all(
        self, requests: Sequence[DraftRequest], *, n_decoding: int | None = None
    ) -> list[list[int]]:
        """The tokens to verify for each request in the next step, in their order; mostly empty.

        `n_decoding` sequences gain a token in that step, those of `requests` included: all of
        them by default.
        """
        raise NotImplementedError

    def forget(self, key: RequestNo) -> None:
        """The sequence has ended. Unknown keys are ignored."""
        raise NotImplementedError
