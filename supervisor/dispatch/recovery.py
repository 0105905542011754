"""What becomes of a sequence whose worker is gone. Pure; the one place that decides it."""

from msgspec import Struct

from gpufc.errors import EngineCrashed, RequestError
from supervisor.dispatch.stream_log import StreamLog
from supervisor.fleet.exit_reason import ExitReason

MAX_FRUITLESS_DISPATCHES = 3
"""A sequence that took down as many workers without a token in between is not tried again."""


class Replay(Struct, frozen=True):
    """It goes on with the next worker, from the tokens that it has."""


class Fail(Struct, frozen=True):
    """It ends with this error."""

    error: RequestError


def decide(log: StreamLog, reason: ExitReason) -> Replay | Fail:
    """Whether a sequence that was running on a lost worker goes on.

    One without a token does: nobody has seen anything of it yet. The others end here until part 3
    makes replay the rule.
    """
    if log.fruitless_dispatches >= MAX_FRUITLESS_DISPATCHES:
        return Fail(
            EngineCrashed(
                f"The engine died {MAX_FRUITLESS_DISPATCHES} times before the first token"
            )
        )
    if not log.tokens:
        return Replay()
    return Fail(EngineCrashed(f"The engine died while it answered: {reason.reason}"))
