"""The catalogue of faults: what happens to a worker, from inside its engine or from outside."""

import signal
from pathlib import Path
from typing import Any

from msgspec import Struct

PAUSE_S = 5.0


class Fault(Struct, frozen=True):
    """One way to do a worker harm.

    `directive` is the fake engine's word for it, `load_crash` the one of its script; `number` is
    a signal from outside. `hangs`: only the watchdog can notice it. `pauses`: it is over after
    `PAUSE_S`, and nothing may have been killed. `dies` are the signal and the code that the front
    must see, or `reasons` what it must find.
    """

    name: str
    directive: str = ""
    code: int | None = None
    load_crash: str = ""
    number: int | None = None
    hangs: bool = False
    pauses: bool = False
    dies: tuple[int | None, int | None] = (None, None)
    reasons: frozenset[str] = frozenset()

    @property
    def outside(self) -> bool:
        return self.number is not None

    def explains(self, last_exit: dict[str, Any]) -> bool:
        """Whether this is what a worker died of: else another fault would pass for this one."""
        if self.reasons:
            return last_exit["reason"] in self.reasons
        return (last_exit["signal"], last_exit["code"]) == self.dies

    def text(self, position: int, once: Path) -> str:
        """The directive for a prompt: the fault after so many tokens, met once."""
        code = "" if self.code is None else f":{self.code}"
        return f"[[{self.directive}@{position}{code} once={once}]]"


BROKEN = frozenset({"decode_failed"})
GIVEN_UP = frozenset({"hung", "load_timeout", "start_timeout"})
THREAD_DIED = 70

INSIDE = (
    Fault("kill", "kill", load_crash="kill", dies=(signal.SIGKILL, None)),
    Fault("segv", "segv", load_crash="segv", dies=(signal.SIGSEGV, None)),
    Fault("abort", "abort", load_crash="abort", dies=(signal.SIGABRT, None)),
    Fault("exit-0", "exit", 0, load_crash="exit0", dies=(None, 0)),
    Fault("exit-3", "exit", 3, load_crash="exit3", dies=(None, 3)),
    Fault("exception", "raise", dies=(None, THREAD_DIED)),
    Fault("decode-error", "decode_error", reasons=BROKEN),
    Fault("nan", "nan", reasons=BROKEN),
    Fault("endless", "hang", load_crash="hang", hangs=True, reasons=GIVEN_UP),
    Fault("frozen", "freeze", hangs=True, reasons=GIVEN_UP),
)
OUTSIDE = (
    Fault("SIGKILL", number=signal.SIGKILL, dies=(signal.SIGKILL, None)),
    Fault("SIGSEGV", number=signal.SIGSEGV, dies=(signal.SIGSEGV, None)),
    Fault("SIGABRT", number=signal.SIGABRT, dies=(signal.SIGABRT, None)),
    Fault("SIGSTOP-5s", number=signal.SIGSTOP, pauses=True),
    Fault("SIGSTOP", number=signal.SIGSTOP, hangs=True, reasons=GIVEN_UP),
)
FAULTS = {fault.name: fault for fault in (*INSIDE, *OUTSIDE)}

NOT_COVERED = (
    "out of memory in a cgroup: needs a cgroup of its own",
    "garbage, oversize, duplicate and old-epoch messages: no fake engine sends them through a "
    "real worker; tests/supervisor/fleet shows them with a scripted child",
    "corrupt model on reload: as the fake's load_fail, see never_loads",
    "inside a grammar, inside a tool call, during a swap: not built yet",
)
