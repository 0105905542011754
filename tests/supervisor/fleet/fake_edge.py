"""A machine for runners: processes and links that a test controls."""

import signal

from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import Boot, FromWorker, ToWorker
from supervisor.fleet.edge import ExitListener
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.followed import Lent
from supervisor.fleet.peer import BrokenListener, MessageListener
from supervisor.fleet.placer import PlaceListener
from supervisor.fleet.watchdog import Vitals
from supervisor.fleet.worker import WorkerSpec

KILLED = ExitReason(signal=9, reason=Reason.KILLED, at=1.0)


class FakeProcess:
    def __init__(self, pid: int | None, on_exit: ExitListener, machine: str | None) -> None:
        self.pid = pid
        self.machine = machine
        self.exit = on_exit
        self.booted: Boot | None = None
        self.ending: ExitListener | None = None
        self.is_watched = False
        self.signals: list[signal.Signals] = []

    def watch_end(self) -> None:
        self.is_watched = True

    def boot(self, boot: Boot) -> None:
        self.booted = boot

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        self.signals.append(number)
        if number is signal.SIGKILL:
            self.exit(KILLED)

    def vitals(self) -> Vitals | None:
        return Vitals("S", 0.0)

    def rss_bytes(self) -> int:
        return 7

    def anonymous_bytes(self) -> int | None:
        return 5

    def lend(self) -> Lent:
        raise NotImplementedError

    def let_go(self) -> None:
        raise NotImplementedError


class FakeLink:
    def __init__(self, epoch: Epoch, say: MessageListener, broken: BrokenListener) -> None:
        self.endpoint = f"ipc:///fake/{epoch}"
        self.epoch = epoch
        self.say = say
        self.broken = broken
        self.sent: list[ToWorker] = []
        self.last_words: list[FromWorker] = []
        self.closed = False
        self.expected: int | None = None

    def expect(self, pid: int) -> None:
        self.expected = pid

    def send(self, message: ToWorker) -> None:
        self.sent.append(message)

    def drain_now(self) -> None:
        while self.last_words:
            self.say(self.last_words.pop(0))

    def close(self) -> None:
        self.closed = True


class FakePlacer:
    """Finds a machine when a test says so."""

    def __init__(self) -> None:
        self.told: PlaceListener | None = None
        self.avoid = ""

    def place(self, epoch: Epoch, spec: WorkerSpec, told: PlaceListener, avoid: str = "") -> None:
        self.told, self.avoid = told, avoid

    def unplace(self) -> None:
        self.told = None

    def say(self, awaited: str | None) -> None:
        """No machine but this one would do; None: there is one."""
        assert self.told is not None
        if awaited is None:
            self.told.found()
        else:
            self.told.awaits(awaited)

    def say_it_prepares(self, text: str) -> None:
        assert self.told is not None
        self.told.prepares(text)


class FakeEdge:
    def __init__(self) -> None:
        self.links: list[FakeLink] = []
        self.processes: list[FakeProcess] = []
        self.refuse: Exception | None = None
        self.machine: str | None = None

    def open_link(
        self, epoch: Epoch, token: str, *, on_message: MessageListener, on_broken: BrokenListener
    ) -> FakeLink:
        self.links.append(FakeLink(epoch, on_message, on_broken))
        return self.links[-1]

    def spawn(
        self, worker: WorkerName, on_exit: ExitListener, on_ending: ExitListener
    ) -> FakeProcess:
        if self.refuse is not None:
            raise self.refuse
        pid = 100 + len(self.processes) if self.machine is None else None
        self.processes.append(FakeProcess(pid, on_exit, self.machine))
        self.processes[-1].ending = on_ending
        return self.processes[-1]

    def log_mark(self, worker: WorkerName) -> int:
        return 5

    def log_since(self, worker: WorkerName, mark: int) -> bytes:
        return f"{worker} printed this since {mark}".encode()
