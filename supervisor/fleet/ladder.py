"""The ladders that end a process, and the time limits of a worker's life. Pure."""

import signal

from msgspec import Struct

from supervisor.fleet import events as ev


class Timings(Struct, frozen=True, kw_only=True):
    """The longest waits, in seconds. Tests shorten them; operators configure `load_s`."""

    start_s: float = 30.0
    """From spawn to hello, also on a machine that is overloaded. Three failed starts with their
    pauses stay below the two minutes that requests wait: then the worker is given up, and waiting
    requests are told."""
    load_s: float = 600.0
    """Loading without progress."""
    trial_s: float = 300.0
    """From loaded to the end of the trial. The watchdog ends a hung engine before; a slow disk may
    need this long."""
    shutdown_s: float = 2.0
    """From the Shutdown message to SIGTERM."""
    terminate_s: float = 3.0
    """From SIGTERM to SIGKILL."""
    dump_s: float = 2.0
    """From SIGABRT, at which a hung worker writes its stacks, to SIGKILL."""
    spare_s: float = 2.0
    """From a worker's ready to the spawn of a spare: replayed streams need the CPU first."""
    first_spare_s: float = 0.1
    """The same for a worker that replaces none: the next model may be wanted at once."""
    kill_s: float = 5.0
    """Between SIGKILLs: a process in an uninterruptible call outlives the first one."""

    def before_spare_s(self, *, is_first: bool) -> float:
        """From a worker's ready to a spare. `is_first`: the worker replaces none."""
        return self.first_spare_s if is_first else self.spare_s


Rung = tuple[tuple[ev.SendShutdown | ev.Signal, ...], float]
Ladder = tuple[Rung, ...]


class Ladders:
    """Four ladders. A rung is the actions of one step and the wait before the next rung."""

    def __init__(self, timings: Timings) -> None:
        kill: Rung = ((ev.Signal(signal.SIGKILL, group=True),), timings.kill_s)
        terminate: Rung = ((ev.Signal(signal.SIGTERM),), timings.terminate_s)
        # a stopped process handles SIGABRT only after SIGCONT
        abort = (ev.Signal(signal.SIGCONT), ev.Signal(signal.SIGABRT))
        self.ask: Ladder = (((ev.SendShutdown(),), timings.shutdown_s), terminate, kill)
        self.terminate: Ladder = (terminate, kill)
        self.dump: Ladder = ((abort, timings.dump_s), kill)
        self.kill: Ladder = (kill,)
