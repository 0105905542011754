"""The catalogue of moments: the state of a stream when a fault comes."""

from enum import StrEnum

from tests.chaos.faults import Fault


class Moment(StrEnum):
    """When."""

    LOADING = "loading"
    IDLE = "idle"
    QUEUED = "queued"
    PREFILL = "mid-prefill"
    FIRST = "first token"
    DECODE = "mid-decode"
    CHARACTER = "inside a character"
    STOP = "inside a held-back stop string"
    LAST = "last token"
    REPLAY = "during replay"
    RESTART = "during restart"
    SWAP = "during swap"
    CANDIDATE = "during swap, the new worker"
    DRAIN = "during drain"


AFTER_A_DEATH = frozenset({Moment.LOADING, Moment.REPLAY})
"""The worker that is hit takes the place of one that was killed before."""
REPLACING = frozenset({Moment.RESTART, Moment.SWAP, Moment.CANDIDATE})
"""An operator has asked for another worker, and it loads beside the one that serves."""
NOT_FROM_INSIDE = frozenset({Moment.IDLE}) | REPLACING
"""Then the engine computes nothing in which it could meet a directive."""

NOT_COVERED = ("inside a grammar, inside a tool call: `--shapes` has them, on the real model",)


def exists(fault: Fault, moment: Moment) -> bool:
    """Whether there is such a cell at all."""
    if fault.unloadable and moment in AFTER_A_DEATH | REPLACING | {Moment.IDLE, Moment.DRAIN}:
        return False  # the first load after the request began is the one that fails
    if fault.outside:
        return True
    if moment is Moment.LOADING:
        return bool(fault.load_fault)
    if moment is Moment.PREFILL:
        return fault.name != "nan"  # a prompt's logits are looked at after its last token only
    return moment not in NOT_FROM_INSIDE
