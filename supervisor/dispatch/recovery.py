"""What becomes of a sequence whose worker is gone. Pure; the one place that decides it.

Replay is the only recovery: it is sent to the next worker with the tokens that it has. These are
the limits of it; who is tried alone, and who is convicted, is `suspects.py`'s.
"""

from msgspec import Struct

from gpufc.errors import EngineCrashed, EngineUnavailable, RequestError
from supervisor.dispatch.stream_log import StreamLog
from supervisor.fleet.exit_reason import ASKED, ExitReason

MAX_FRUITLESS_REPLAYS = 3
"""Replays in a row that brought no token. What comes after so many is not tried."""

MAX_OUTAGE_S = 120.0
"""How long a sequence waits for there to be a worker at all."""


class Replay(Struct, frozen=True):
    """It goes on with the next worker, from the tokens that it has."""


class Fail(Struct, frozen=True):
    """It ends with this error."""

    error: RequestError


def decide(log: StreamLog, reason: ExitReason) -> Replay | Fail:
    """Whether a sequence that was running on a lost worker goes on.

    An end that an operator asked for is no failure of the replay, and is not counted.
    """
    if reason.reason in ASKED:
        log.fruitless_dispatches = max(0, log.fruitless_dispatches - 1)
        return Replay()
    # the first dispatch of all was no replay
    fruitless = log.fruitless_dispatches - (0 if log.tokens else 1)
    if fruitless < MAX_FRUITLESS_REPLAYS:
        return Replay()
    return Fail(
        EngineCrashed(
            f"The engine died {log.fruitless_dispatches} times without getting on with this "
            f"request; the last time it {reason.reason}"
        )
    )


def outage_over_limit(*, began: bool) -> RequestError:
    """The end of what has waited for `MAX_OUTAGE_S`, and had begun before or had not."""
    if began:
        return EngineCrashed(f"No engine could go on with this request for {MAX_OUTAGE_S:.0f} s")
    return EngineUnavailable(
        f"No engine was ready for {MAX_OUTAGE_S:.0f} s", retry_after_s=MAX_OUTAGE_S / 4
    )


def model_changed() -> RequestError:
    """The end of what had begun on a model that is there no more: its file was replaced."""
    return EngineCrashed("The model's file has changed since this request began; ask again")


def refusal_of(log: StreamLog, error: RequestError) -> RequestError:
    """What a client is told when a worker refuses a sequence. One that has begun was accepted
    once: then it is not the client's fault, whatever the worker says."""
    if not log.tokens or error.status >= 500:
        return error
    return EngineCrashed(f"The engine could not go on with this request: {error.message}")
