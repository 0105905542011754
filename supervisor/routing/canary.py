"""A canary: a share of new requests goes to the new model first, and the evidence decides. Pure."""

from enum import StrEnum

from msgspec import Struct


class Side(StrEnum):
    """The model before, or the new one."""

    STABLE = "stable"
    CANARY = "canary"


class Verdict(StrEnum):
    """The state of the evidence. The last two are final."""

    UNDECIDED = "undecided"
    ROLL_BACK = "roll_back"
    TAKE_OVER = "take_over"


class CanaryRules(Struct, frozen=True, kw_only=True):
    """When there is enough evidence.

    `share` of new requests go to the canary. It takes over after `n_enough` of them ended well and
    `least_s` have passed. It is rolled back when its error rate is above the stable side's by more
    than `error_margin`, or its latency above `latency_ratio` times the stable side's, with
    `confidence` that it is no chance. After `most_s` without enough requests it is rolled back.
    """

    share: float = 0.1
    n_enough: int = 50
    least_s: float = 60.0
    most_s: float = 3600.0
    error_margin: float = 0.01
    latency_ratio: float = 1.5
    confidence: float = 0.99


class Outcome(Struct, frozen=True):
    """The end of one request. An error is the engine's, not the client's (4xx, a client that left).
    `latency_s` is the time to the first token, None without one. `token_s` is the time between
    tokens, None with fewer than two."""

    ok: bool
    latency_s: float | None = None
    token_s: float | None = None


class Canary:
    """One canary, from its start to its verdict. Owned by one model's group."""

    def __init__(self, rules: CanaryRules, now: float) -> None:
        raise NotImplementedError

    def side(self) -> Side:
        """The side of the next new request. Exactly `share` of them go to the canary."""
        raise NotImplementedError

    def ended(self, side: Side, outcome: Outcome) -> None:
        """A request of this side has ended."""

    def died(self) -> None:
        """The canary's worker has died, other than by a request that kills both sides."""

    def verdict(self, now: float) -> Verdict:
        """The verdict by now. A final one stays."""
        raise NotImplementedError

    @property
    def reason(self) -> str:
        """The verdict's reason, with figures, for people."""
        return ""
