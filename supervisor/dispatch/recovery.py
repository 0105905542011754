"""Whether a sequence that has lost its worker goes on. Pure; the one place that decides it.

Replay is the only recovery: the sequence is sent to the next worker with its tokens. This module
has the limits of replays; `suspects.py` finds the request that kills workers.
"""

from msgspec import Struct

from gpufc.errors import EngineCrashed, EngineUnavailable, RequestError
from supervisor.dispatch.stream_log import StreamLog
from supervisor.fleet.exit_reason import ASKED, WITH_ITS_MACHINE, ExitReason, Reason

MAX_FRUITLESS_REPLAYS = 3
"""After this many replays in a row without a token, a sequence fails."""

MAX_EXCUSED_KILLS = 5
"""Kills in a row without a token that are not held against a sequence. With the fruitless replays
they are fewer than the default `restart_limit`: no request brings its model to `failed` by kills
that are taken for a killer's."""

MAX_OUTAGE_S = 120.0
"""How long a sequence waits while its model has no worker."""


class Replay(Struct, frozen=True):
    """It continues on the next worker from its tokens."""


class Fail(Struct, frozen=True):
    """It ends with this error."""

    error: RequestError


def decide(log: StreamLog, reason: ExitReason, *, has_killer: bool = False) -> Replay | Fail:
    """Whether a sequence that was running on a lost worker goes on.

    A worker's end that an operator asked for, or that came with its machine's, does not count as a
    fruitless replay. Nor does a kill from outside where there is a killer that no request attracts
    (`Losses.has_killer`).
    """
    is_excused = has_killer and reason.reason is Reason.KILLED
    if is_excused and log.excused_kills < MAX_EXCUSED_KILLS:
        log.excused_kills += 1
        log.fruitless_dispatches = max(0, log.fruitless_dispatches - 1)
        return Replay()
    if reason.reason in ASKED | WITH_ITS_MACHINE:
        log.fruitless_dispatches = max(0, log.fruitless_dispatches - 1)
        return Replay()
    # the first dispatch of all was no replay
    fruitless = log.fruitless_dispatches - (0 if log.tokens else 1)
    if fruitless < MAX_FRUITLESS_REPLAYS:
        return Replay()
    return Fail(
        EngineCrashed(
            f"The engine died {log.fruitless_dispatches + log.excused_kills} times without getting "
            f"on with this request; the last time it {reason.reason}"
        )
    )


def outage_over_limit(lacking: str, *, began: bool) -> RequestError:
    """The end of a sequence that has waited for `MAX_OUTAGE_S`. `lacking` is the reason why its
    model has no worker; empty if that is unknown."""
    why = f": {lacking}" if lacking else ""
    if began:
        return EngineCrashed(
            f"No engine could go on with this request for {MAX_OUTAGE_S:.0f} s{why}"
        )
    return EngineUnavailable(
        f"No engine was ready for {MAX_OUTAGE_S:.0f} s{why}", retry_after_s=MAX_OUTAGE_S / 4
    )


def model_changed() -> RequestError:
    """The end of a sequence that began on a model file that has since been replaced."""
    return EngineCrashed("The model's file has changed since this request began; ask again")


def refusal_of(log: StreamLog, error: RequestError) -> RequestError:
    """The client's error for a worker's refusal of a sequence. A sequence with tokens was accepted
    once, so its refusal is no fault of the client."""
    if not log.tokens or error.status >= 500:
        return error
    return EngineCrashed(f"The engine could not go on with this request: {error.message}")
