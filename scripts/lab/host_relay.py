#!/usr/bin/env python3
"""The cost of a worker host between a worker and its front: scripts/lab/host_relay.py [SECONDS]

Two paths in the same run, in turns: a worker's `ipc` link to the front, and the same link to a
worker host that relays it over tcp with CURVE (loopback). The worker is a process that sends one
`Step` of 32 deltas at 100 Hz, then as fast as it can. Prints latency, and CPU per message of front
and host. Absolute times mean little on a busy machine; the difference within a run does.
"""

import asyncio
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import uvloop  # noqa: E402
import zmq  # noqa: E402

from gpufc import wire as worker_wire  # noqa: E402
from gpufc.config import ModelConfig  # noqa: E402
from gpufc.ids import Epoch, RequestNo, WorkerName  # noqa: E402
from gpufc.protocol import PROTOCOL_VERSION, Boot, Delta, Hello, Step  # noqa: E402
from supervisor.cluster.book import HostBook  # noqa: E402
from supervisor.cluster.join import write_join_file  # noqa: E402
from supervisor.cluster.listener import HostListener  # noqa: E402
from supervisor.cluster.messages import CloseLink, Signal, Spawn  # noqa: E402
from supervisor.fleet.link import WorkerLink  # noqa: E402
from supervisor.fleet.peer import Peer  # noqa: E402
from tests.supervisor.cluster.hosts import Recorder  # noqa: E402

N_DELTAS = 32
HZ = 100
N_FLOOD = 20_000
N_ROUNDS = 3
TOKEN = secrets.token_hex(16)


def worker(boot_fd: int, seconds: float) -> None:
    """Send steps; `step` is the time of sending in microseconds."""
    boot = worker_wire.read_boot(boot_fd)
    if boot is None:
        sys.exit("the pipe was closed before the boot message")
    socket = zmq.Context().socket(zmq.DEALER)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.connect(boot.endpoint)
    socket.send(worker_wire.encode(Hello(boot.epoch, PROTOCOL_VERSION, boot.token, os.getpid())))
    deltas = tuple(Delta(RequestNo(n), 100, (12345,), " token") for n in range(N_DELTAS))
    begin = time.monotonic() + 0.5
    for n in range(int(seconds * HZ)):
        time.sleep(max(0.0, begin + n / HZ - time.monotonic()))
        socket.send(worker_wire.encode(Step(boot.epoch, now_us(), deltas)))
    time.sleep(0.5)
    data = worker_wire.encode(Step(boot.epoch, 0, deltas))
    for _ in range(N_FLOOD):
        socket.send(data)
    time.sleep(1e6)


def now_us() -> int:
    return time.monotonic_ns() // 1000


class Counted:
    """The messages of one path, and CPU times around both phases."""

    def __init__(self, host_pid: int | None) -> None:
        self.late_us: list[int] = []
        self.n_flood = 0
        self.cpu: list[tuple[float, float]] = []
        self._host_pid = host_pid
        self.done = asyncio.Event()

    def mark(self) -> None:
        self.cpu.append((time.process_time(), cpu_of(self._host_pid)))

    def take(self, message: object) -> None:
        if isinstance(message, Hello):
            self.mark()
        elif isinstance(message, Step) and message.step:
            self.late_us.append(now_us() - message.step)
        elif isinstance(message, Step):
            if not self.n_flood:
                self.mark()
            self.n_flood += 1
            if self.n_flood == N_FLOOD:
                self.mark()
                self.done.set()

    def row(self, path: str) -> str:
        late = sorted(self.late_us)
        paced, flood = len(late), self.n_flood
        front = [b[0] - a[0] for a, b in zip(self.cpu, self.cpu[1:], strict=False)]
        host = [b[1] - a[1] for a, b in zip(self.cpu, self.cpu[1:], strict=False)]
        return (
            f"{path:16} p50 {statistics.median(late):6.0f} µs"
            f"  p99 {late[-len(late) // 100]:7.0f} µs"
            f"  front {front[0] / paced * 1e6:6.1f} µs  host {host[0] / paced * 1e6:6.1f} µs"
            f"  flood: front {front[1] / flood * 1e6:5.1f} µs  host {host[1] / flood * 1e6:5.1f} µs"
        )


def cpu_of(pid: int | None) -> float:
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def direct(folder: Path, command: list[str]) -> str:
    counted = Counted(None)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    path = folder / f"w-{secrets.token_hex(4)}.sock"
    link = WorkerLink(
        context, path, Epoch(1), TOKEN, on_message=counted.take, on_broken=lambda *_: None
    )
    read, write = os.pipe()
    child = subprocess.Popen([*command, "--boot-fd", str(read)], pass_fds=(read,))  # noqa: ASYNC220
    link.expect(child.pid)
    worker_wire.write_boot(write, boot(1, link.endpoint))
    await counted.done.wait()
    child.kill()
    child.wait()
    link.close()
    return counted.row("ipc")


async def relayed(listener: HostListener, hosts: Recorder, host_pid: int, epoch: int) -> str:
    counted = Counted(host_pid)
    peer = Peer(Epoch(epoch), TOKEN, on_message=counted.take, on_broken=lambda *_: None)
    greeted = False

    def take(data: memoryview) -> None:
        nonlocal greeted
        if greeted:
            peer.receive(data)
        else:
            peer.expect(worker_wire.decode_from_worker(data).pid)  # type: ignore[union-attr]
            greeted = peer.greet(data)

    hosts.channel.listen(Epoch(epoch), take)
    hosts.channel.send(Spawn(boot(epoch, "")))
    await counted.done.wait()
    hosts.channel.send(CloseLink(Epoch(epoch)))
    hosts.channel.send(Signal(Epoch(epoch), 9, True))
    return counted.row("host, tcp, CURVE")


def boot(epoch: int, endpoint: str) -> Boot:
    model = ModelConfig(model_path="none")
    return Boot(Epoch(epoch), WorkerName("lab"), endpoint, TOKEN, model, N_DELTAS)


async def measure(seconds: float) -> None:
    command = [sys.executable, __file__, "worker", str(seconds)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hosts, book = Recorder(), HostBook(folder / "hosts.json")
        listener = HostListener(book, hosts, "tcp://127.0.0.1:0")
        address = listener.endpoint.removeprefix("tcp://")
        write_join_file(folder / "join", address, book.front.public, book.invite())
        host = subprocess.Popen([sys.executable, __file__, "host", name, str(seconds)])  # noqa: ASYNC220
        await hosts.until(lambda: hosts.channels)
        for n in range(N_ROUNDS):
            print(await direct(folder, command), flush=True)
            print(await relayed(listener, hosts, host.pid, n + 1), flush=True)
        host.terminate()
        await asyncio.to_thread(host.wait)
        listener.close()


async def run_host(folder: Path, seconds: str) -> None:
    from supervisor.cluster.join import endpoint, read_join_file
    from supervisor.runtime_dir import RuntimeDir
    from supervisor.worker_host.dialer import Goal
    from supervisor.worker_host.process import Plan, serve

    join = read_join_file(folder / "join", {})
    if join is None:
        sys.exit(f"{folder / 'join'} has no invitation")
    goal = Goal(endpoint(join.front), join.front_key, join.invitation())
    plan = Plan(
        runtime=RuntimeDir.acquire(str(folder / "run")),
        key_file=folder / "host.json",
        name="lab",
        goal=goal,
        models_dir=folder / "models",
        drain_s=0.1,
        command=[sys.executable, __file__, "worker", seconds],
    )
    await serve(plan, lambda text: None)


def main() -> None:
    words = sys.argv[1:]
    if words[:1] == ["worker"]:
        worker(int(words[words.index("--boot-fd") + 1]), float(words[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if words[:1] == ["host"]:
            runner.run(run_host(Path(words[1]), words[2]))
        else:
            runner.run(measure(float(words[0]) if words else 10.0))


if __name__ == "__main__":
    main()
