"""A drafter with scripted answers, and step costs for tests."""

from collections.abc import Sequence

from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.speculation.drafter import Draft, DraftRequest
from gpufc.ids import RequestNo

RIGHT, WRONG = 1, 2
"""Tokens of the scripted drafter. The sequences of these tests continue with `RIGHT`."""


class ScriptedDrafter:
    """Drafts one token for every sequence, repeated up to the limit."""

    def __init__(
        self,
        token: int = RIGHT,
        assumed: float = 0.5,
        evidence: int = 50,
        position_s: float | None = None,
    ) -> None:
        self.position_s = position_s
        self.token = token
        self.assumed = assumed
        self.evidence = evidence
        self.asked: list[list[RequestNo]] = []
        self.forgotten: list[RequestNo] = []

    def assumed_rate(self, evidence: int) -> float:
        return self.assumed

    def draft_all(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        self.asked.append([request.key for request in requests])
        return [Draft([self.token] * request.limit, self.evidence) for request in requests]

    def forget(self, key: RequestNo) -> None:
        self.forgotten.append(key)


def costs(first_s: float, further_s: float) -> StepCosts:
    found = StepCosts()
    for n_tokens in (1, 2048):
        found.computed(n_tokens, first_s + further_s * (n_tokens - 1))
    return found


def settled_costs(first_s: float, further_s: float) -> StepCosts:
    """Costs of settled steps, for up to four sequences with drafts of seven tokens."""
    found = StepCosts()
    for n_tokens in (1, 2, 3, 4, 8, 16, 24, 32):
        for _ in range(3):
            found.computed(n_tokens, first_s + further_s * (n_tokens - 1))
    return found
