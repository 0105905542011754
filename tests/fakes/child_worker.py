"""A worker that behaves, or misbehaves, as its first argument says. No model, no engine.

Run as `python child_worker.py BEHAVIOUR --boot-fd N`.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import zmq

from gpufc import end_word, wire
from gpufc.ids import Epoch, RequestNo
from gpufc.packed import packed
from gpufc.protocol import (
    HEARTBEAT_S,
    PROTOCOL_VERSION,
    Boot,
    Cancel,
    Delta,
    EnginePhase,
    EngineStatus,
    ExportKv,
    FinishReason,
    Generate,
    Heartbeat,
    Hello,
    KvMoved,
    LoadFailed,
    Loading,
    Message,
    Prepare,
    Prepared,
    Ready,
    Shutdown,
    Step,
)
from tests.fakes.facts import model_facts


class Child:
    """The worker's end of the link."""

    def __init__(self, boot: Boot) -> None:
        self.boot = boot
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 500)
        self.socket.connect(boot.endpoint)

    def send(self, message: Message) -> None:
        self.socket.send(wire.encode(message))

    def hello(self, **changes: object) -> None:
        fields = {"protocol": PROTOCOL_VERSION, "token": self.boot.token, "pid": os.getpid()}
        self.send(Hello(self.boot.epoch, **(fields | changes)))  # type: ignore[arg-type]

    def ready(self) -> None:
        self.hello()
        self.send(Loading(self.boot.epoch, 0.5))
        self.send(ready(self.boot.epoch))

    def heartbeat(self) -> None:
        engine = EngineStatus(EnginePhase.IDLE, 1, time.monotonic(), 0, 2, 1, 77)
        self.send(Heartbeat(self.boot.epoch, engine, time.monotonic()))

    def receive(self) -> bytes:
        """The next message, with heartbeats while there is none."""
        while not self.socket.poll(HEARTBEAT_S * 1000):
            self.heartbeat()
        return self.socket.recv()

    def serve(self) -> None:
        """Answer every Generate with one token; Cancel asks for trouble (see `_trouble`)."""
        while True:
            message = wire.decode_to_worker(self.receive())
            match message:
                case Shutdown():
                    self.socket.close()
                    sys.exit(0)
                case Prepare():
                    self.send(Prepared(self.boot.epoch, message.request, packed((1, 2))))
                case Generate():
                    on_trial = message.request == 0
                    self.token(message.request, finish=FinishReason.LENGTH if on_trial else None)
                case Cancel():
                    _trouble(self, message.request)
                case ExportKv():
                    self.send(KvMoved(self.boot.epoch, 0, 0, 0, 0.0))
                case _:
                    pass

    def token(
        self,
        request: RequestNo,
        epoch: Epoch | None = None,
        finish: FinishReason | None = None,
    ) -> None:
        delta = Delta(request, 0, (17,), "x", finish)
        self.send(Step(self.boot.epoch if epoch is None else epoch, 1, (delta,)))


def ready(epoch: Epoch) -> Ready:
    """What a small model would report."""
    return Ready(epoch, model_facts(), loaded_in_s=0.01)


def _trouble(child: Child, number: int) -> None:
    match number:
        case 1:
            ctypes.string_at(0)
        case 2:
            child.socket.send(b"\xc1 not msgpack")
        case 3:
            child.token(RequestNo(9), Epoch(child.boot.epoch - 1))
            child.token(RequestNo(10))
        case 4:
            os.abort()
        case 5:
            child.send(ready(child.boot.epoch))
        case 6:
            for request in range(5000):
                child.token(RequestNo(request))
        case 7:
            os._exit(0)
        case 8:
            os.write(2, b"WARNING CUDA error: out of memory\n")
            os.abort()
        case _:
            raise AssertionError(number)


def _ready(child: Child) -> None:
    child.ready()
    child.heartbeat()
    child.serve()


def _no_hello(_: Child) -> None:
    time.sleep(600)


def _wrong_token(child: Child) -> None:
    child.hello(token="f" * 32)
    time.sleep(600)


def _wrong_pid(child: Child) -> None:
    child.hello(pid=1)
    time.sleep(600)


def _wrong_version(child: Child) -> None:
    child.hello(protocol=PROTOCOL_VERSION + 1)
    time.sleep(600)


def _garbage_after_hello(child: Child) -> None:
    child.hello()
    child.socket.send(b"\xc1 not msgpack")
    time.sleep(600)


def _garbage_before_hello(child: Child) -> None:
    child.socket.send(b"\xc1 not msgpack")
    child.socket.send_multipart([b"two", b"frames"])
    _ready(child)


def _exit_3_while_loading(child: Child) -> None:
    child.hello()
    child.send(Loading(child.boot.epoch, 0.1))
    child.socket.close()
    zmq.Context.instance().term()
    os._exit(3)


def _segfault_while_loading(child: Child) -> None:
    child.hello()
    ctypes.string_at(0)


def _load_failed(child: Child) -> None:
    child.hello()
    child.send(LoadFailed(child.boot.epoch, "no such file", retryable=False))
    child.socket.close()
    zmq.Context.instance().term()
    os._exit(1)


def _stuck_while_loading(child: Child) -> None:
    child.hello()
    child.send(Loading(child.boot.epoch, 0.1))
    time.sleep(600)


def _ignores_all(child: Child) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child.ready()
    while not isinstance(wire.decode_to_worker(child.receive()), Prepare):
        pass
    child.send(Prepared(child.boot.epoch, RequestNo(0), packed((1, 2))))
    child.token(RequestNo(0), finish=FinishReason.LENGTH)
    time.sleep(600)


def _prints(child: Child) -> None:
    print("to stdout", flush=True)
    print("to stderr", file=sys.stderr, flush=True)
    _ready(child)


def _with_a_child(child: Child) -> None:
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"helper {helper.pid}", flush=True)
    _ready(child)


def _shows_environment(child: Child) -> None:
    print("\n".join(f"env {name}={value}" for name, value in os.environ.items()), flush=True)
    print("fds", sorted(int(fd) for fd in os.listdir("/proc/self/fd")), flush=True)
    _ready(child)


BEHAVIOURS: dict[str, Callable[[Child], None]] = {
    behaviour.__name__.lstrip("_"): behaviour
    for behaviour in (
        _ready,
        _no_hello,
        _wrong_token,
        _wrong_pid,
        _wrong_version,
        _garbage_after_hello,
        _garbage_before_hello,
        _exit_3_while_loading,
        _segfault_while_loading,
        _load_failed,
        _stuck_while_loading,
        _ignores_all,
        _prints,
        _with_a_child,
        _shows_environment,
    )
}


def _die_with_the_front(boot_fd: int) -> None:
    with contextlib.suppress(OSError):
        os.read(boot_fd, 1)  # returns at end of file: the front is gone
    os._exit(9)


def main() -> None:
    behaviour, flag, number = sys.argv[1:4]
    if flag != "--boot-fd":
        raise SystemExit(2)
    boot_fd = int(number)
    if (word := os.environ.pop(end_word.END_FD, None)) is not None:
        end_word.hold(int(word))
        os.close(int(word))
    boot = wire.read_boot(boot_fd)
    if boot is None:
        raise SystemExit(9)
    threading.Thread(target=_die_with_the_front, args=(boot_fd,), daemon=True).start()
    BEHAVIOURS[behaviour](Child(boot))


if __name__ == "__main__":
    main()
