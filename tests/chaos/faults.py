"""The catalogue of faults, from inside a worker's engine or from outside."""

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

PAUSE_S = 5.0


class Fault(Struct, frozen=True):
    """One way to do a worker harm.

    `directive` is the fake engine's word for it, `load_fault` that of its script for a load;
    `number` is a signal from outside. `hangs`: only the watchdog can notice it. `pauses`: it is
    over after `PAUSE_S`. `harmless`: the front must not care. `unloadable`: the model cannot be
    loaded any more. `limited`: the service needs a limit of its memory. `dies` are the signal and
    the code that the front must see, or `reasons` what it must find.
    """

    name: str
    directive: str = ""
    code: int | None = None
    load_fault: str = ""
    number: int | None = None
    hangs: bool = False
    pauses: bool = False
    harmless: bool = False
    unloadable: bool = False
    limited: bool = False
    dies: tuple[int | None, int | None] = (None, None)
    reasons: frozenset[str] = frozenset()

    @property
    def outside(self) -> bool:
        return self.number is not None

    @property
    def survived(self) -> bool:
        """Whether the worker must live on."""
        return self.pauses or self.harmless

    def explains(self, end: Mapping[str, Any]) -> bool:
        """Whether this is what a worker died of: else another fault would pass for this one."""
        if self.reasons:
            return end["reason"] in self.reasons
        return (end["signal"], end["code"]) == self.dies

    def text(self, position: int, once: Path) -> str:
        """The directive for a prompt: the fault after so many tokens, met once."""
        code = "" if self.code is None else f":{self.code}"
        return f"[[{self.directive}@{position}{code} once={once}]]"


BROKEN = frozenset({"decode_failed"})
NO_MEMORY = frozenset({"out_of_memory"})
NONSENSE = frozenset({"protocol_error"})
GIVEN_UP = frozenset({"hung", "load_timeout", "start_timeout"})
THREAD_DIED = 70

INSIDE = (
    Fault("kill", "kill", load_fault="kill", dies=(signal.SIGKILL, None)),
    Fault("segv", "segv", load_fault="segv", dies=(signal.SIGSEGV, None)),
    Fault("abort", "abort", load_fault="abort", dies=(signal.SIGABRT, None)),
    Fault("exit-0", "exit", 0, load_fault="exit0", dies=(None, 0)),
    Fault("exit-3", "exit", 3, load_fault="exit3", dies=(None, 3)),
    Fault("exception", "raise", load_fault="raise", dies=(None, THREAD_DIED)),
    Fault(
        "out-of-memory", "hog", load_fault="hog", limited=True, reasons=frozenset({"out_of_memory"})
    ),
    Fault("decode-error", "decode_error", reasons=BROKEN),
    Fault("nan", "nan", reasons=BROKEN),
    Fault("garbage", "garbage", load_fault="garbage", reasons=NONSENSE),
    Fault("oversize", "oversize", load_fault="oversize", dies=(None, THREAD_DIED)),
    Fault("duplicate", "duplicate", load_fault="duplicate", harmless=True),
    Fault("old-epoch", "old_epoch", load_fault="old_epoch", harmless=True),
    Fault("corrupt-model", "kill", unloadable=True, dies=(signal.SIGKILL, None)),
    Fault("endless", "hang", load_fault="hang", hangs=True, reasons=GIVEN_UP),
    Fault("frozen", "freeze", load_fault="freeze", hangs=True, reasons=GIVEN_UP),
)
OUTSIDE = (
    Fault("SIGKILL", number=signal.SIGKILL, dies=(signal.SIGKILL, None)),
    Fault("SIGSEGV", number=signal.SIGSEGV, dies=(signal.SIGSEGV, None)),
    Fault("SIGABRT", number=signal.SIGABRT, dies=(signal.SIGABRT, None)),
    Fault("SIGBUS", number=signal.SIGBUS, dies=(signal.SIGBUS, None)),
    Fault("SIGTERM", number=signal.SIGTERM, dies=(signal.SIGTERM, None)),
    Fault("SIGSTOP-5s", number=signal.SIGSTOP, pauses=True),
    Fault("SIGSTOP", number=signal.SIGSTOP, hangs=True, reasons=GIVEN_UP),
)
ALL = (*INSIDE, *OUTSIDE)
CORRUPTING = Fault(
    "SIGKILL, corrupt-model", number=signal.SIGKILL, unloadable=True, dies=(signal.SIGKILL, None)
)
"""Of a real file; a scripted engine has none."""
REAL = (*OUTSIDE, CORRUPTING)
