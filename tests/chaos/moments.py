"""The catalogue of moments: what a stream is doing when the fault comes, and how that is hit.

A fault from inside is a directive of the prompt and hits exactly. One from outside is a signal,
sent when the front's figures say that the moment has come: the step is so slow that the signal
arrives in the one after it. A signal that came too late raises `Missed`.
"""

from enum import StrEnum

from msgspec import Struct

from engine_worker.fake_vocabulary import expected_tokens, piece, tokenize
from tests.chaos.faults import Fault

N_TOKENS = 40
LONG = "a long prompt " * 100
"""With `SLOW_PREFILL` its prefill takes 0.7 s, in six steps."""


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
    DRAIN = "during drain"


DECODING = (Moment.FIRST, Moment.DECODE, Moment.CHARACTER, Moment.STOP, Moment.LAST)
NOT_FROM_INSIDE = frozenset({Moment.IDLE, Moment.RESTART})
"""Then the engine computes nothing in which it could meet a directive."""


class Setup(Struct, frozen=True):
    """How the service of a cell is configured. Cells with equal setups share services."""

    script: str
    n_running: int = 10
    load_timeout_s: float = 600.0
    alone: bool = False
    load_crash: str = ""

    def environ(self, marker: str) -> dict[str, str]:
        """`marker` is the file whose absence lets the next load go wrong."""
        crash = f",load_crash={self.load_crash},fail_once_file={marker}"
        if self.load_crash == "hang":
            crash = f",load_hang=1,fail_once_file={marker}"
        return {
            "GPUFC_BACKEND": "fake",
            "GPUFC_FAKE_SCRIPT": self.script + (crash if self.load_crash else ""),
            "GPUFC_RESTART_LIMIT": "10000",
            "GPUFC_MAX_CONCURRENT_REQUESTS": str(self.n_running),
            "GPUFC_LOAD_TIMEOUT_S": str(self.load_timeout_s),
            "GPUFC_LOG_LEVEL": "warning",
        }


PLAIN = Setup("step_ms=15")
SLOW_PREFILL = Setup("step_ms=8,prefill_us=500")
SLOW_LOAD = Setup("step_ms=8,load_s=0.6")
FEW = Setup("step_ms=8", n_running=2)
ALONE = Setup("step_ms=10", alone=True)


def setup(fault: Fault, moment: Moment) -> Setup:
    """The service that a cell needs."""
    match moment:
        case Moment.PREFILL | Moment.REPLAY:
            return SLOW_PREFILL
        case Moment.LOADING if not fault.outside:
            return Setup("step_ms=8,load_s=0.1", load_crash=fault.load_crash, load_timeout_s=3.0)
        case Moment.LOADING | Moment.RESTART:
            return SLOW_LOAD
        case Moment.QUEUED:
            return FEW
        case Moment.DRAIN:
            return ALONE
        case _:
            return PLAIN


def exists(fault: Fault, moment: Moment) -> bool:
    """Whether there is such a cell at all."""
    if fault.outside:
        return True
    if moment is Moment.LOADING:
        return bool(fault.load_crash)
    if moment is Moment.PREFILL:
        return fault.name != "nan"  # a prompt's logits are looked at after its last token only
    return moment not in NOT_FROM_INSIDE


def position(moment: Moment, prompt: str) -> int:
    """After how many tokens the fault comes, for the moments that are a position."""
    match moment:
        case Moment.PREFILL:
            return -1
        case Moment.FIRST:
            return 0
        case Moment.CHARACTER:
            return inside_a_character(prompt, N_TOKENS // 3)
        case Moment.STOP:
            return len("before ST")
        case Moment.LAST:
            return N_TOKENS - 1
        case _:
            return N_TOKENS // 3


def prompt(moment: Moment, name: str, directives: str = "") -> str:
    """A prompt of its own for each cell, with what the moment needs."""
    if moment in (Moment.PREFILL, Moment.REPLAY):
        return f"{name} {LONG[: len(LONG) // 2]}{directives}{LONG[len(LONG) // 2 :]}"
    special = {Moment.CHARACTER: "[[emoji]]", Moment.STOP: "[[say:before STOP after]]"}
    return f"{special.get(moment, '')}{directives}{name}"


def inside_a_character(prompt: str, least: int) -> int:
    """The first position from `least` on at which some bytes of a character are still missing."""
    tokens = expected_tokens(tokenize(prompt, add_special=True), least + 8)
    for end in range(least, len(tokens)):
        data = b"".join(map(piece, tokens[:end]))
        if len(data.decode("utf-8", "ignore").encode()) < len(data):
            return end
    raise ValueError("no character of several bytes in this text")
