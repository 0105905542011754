"""The signals that no process of gpufc ends by, although their default action is to end it.

Timers, profilers, log rotation, power supplies and other programs send them. Nothing here does, so
each one is a stray.
"""

import signal

STRAY = frozenset(
    {
        *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGALRM, signal.SIGVTALRM),
        *(signal.SIGPROF, signal.SIGIO, signal.SIGPWR, signal.SIGSTKFLT, signal.SIGXFSZ),
        *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
    }
)
"""Ignored by the front, its workers and worker hosts. Programs that they start begin with these
signals ignored, too."""


def ignore_stray() -> None:
    """Ignore `STRAY`. Belongs into the main thread."""
    for number in STRAY:
        signal.signal(number, signal.SIG_IGN)
