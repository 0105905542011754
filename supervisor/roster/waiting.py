"""What a client that waits for a model is told. Pure."""

from gpufc.errors import EngineUnavailable
from supervisor.fleet.group import Absence
from supervisor.residency.port import Refuse, Wait, WaitReason

USELESS_S = 60.0
"""When to ask again where nothing but another file or configuration helps: a number is needed."""


def of_wait(wait: Wait) -> str:
    """Why a model is not loaded yet, its turn, and when it can serve."""
    turn = f", place {wait.position}" if wait.position > 1 else ""
    return f"{reason(wait.reason)}{turn}{about(wait.expected_s)}"


def reason(why: WaitReason) -> str:
    """The reason in a client's words."""
    match why:
        case WaitReason.LOADING:
            return "loading"
        case WaitReason.MEMORY_SETTLING:
            return "waiting for memory that is being given back"
        case WaitReason.BUSY:
            return "waiting for memory: other models are busy"
        case WaitReason.MIN_STAY:
            return "waiting for memory: another model has just been loaded"
        case WaitReason.QUEUE:
            return "waiting for memory: other models have waited longer"


def of_load(fraction: float, rest_s: float | None) -> str:
    """How far a load is."""
    return f"loading, {fraction:.0%}{about(rest_s)}"


def about(seconds: float | None) -> str:
    """An expected time, where one is known."""
    return "" if seconds is None else f", about {max(1.0, seconds):.0f} s"


def refusal(model: str, action: Refuse) -> EngineUnavailable:
    """The error of requests that wait in vain."""
    return EngineUnavailable(
        f"{model} cannot be loaded: {action.reason}",
        retry_after_s=USELESS_S if action.retry_after_s is None else max(1.0, action.retry_after_s),
    )


def absence_of(
    failure: tuple[str, float] | None,
    refused: Refuse | None,
    wait: Wait | None,
    now: float,
    *,
    is_queued: bool,
) -> Absence | None:
    """What keeps a model without a worker from being loaded at once. `failure` is its cool-down."""
    if failure is not None:
        return Absence(f"it could not be loaded: {failure[0]}", now + failure[1], True)
    if refused is not None and refused.retry_after_s is None:
        return Absence(f"it does not fit: {refused.reason}", is_failure=True)
    if wait is not None:
        return Absence(of_wait(wait))
    return Absence("waiting for another load to end") if is_queued else None
