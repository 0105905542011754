"""Every signal that can end a process is either ignored, or is meant to end it."""

import signal

from gpufc.signals import STRAY

MEANT = {
    signal.SIGKILL,
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU),
    *(signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE),
    *(signal.SIGSEGV, signal.SIGSYS),
}
"""Requests to end, and faults of the process itself."""
HARMLESS = {
    *(signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT),
    *(signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
}
"""Signals whose default action is to do nothing, to stop or to continue (signal(7))."""


def test_each_signal_of_this_system_has_one_meaning() -> None:
    assert signal.valid_signals() == STRAY | MEANT | HARMLESS
    assert len(STRAY) + len(MEANT) + len(HARMLESS) == len(signal.valid_signals())
