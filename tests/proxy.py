"""A TCP proxy on loopback whose connections a test can cut, stall in one direction, or delay."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from enum import StrEnum

CHUNK = 64 * 1024


class Way(StrEnum):
    """A direction through the proxy. The host dials, the front listens."""

    TO_FRONT = "to front"
    TO_HOST = "to host"


class Proxy:
    """Forwards connections to `target`, one thread for each direction of each.

    A stalled direction passes nothing and loses nothing, as a partition looks from TCP: the bytes
    come in order once it goes on.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.n_accepted = 0
        self._connections: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._open = {way: threading.Event() for way in Way}
        self._delay_s = 0.0
        self.go_on()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def stall(self, *ways: Way) -> None:
        """Pass nothing in these directions, in either without any."""
        for way in ways or Way:
            self._open[way].clear()

    def go_on(self) -> None:
        """Pass everything at once again, first what has been held back."""
        self._delay_s = 0.0
        for passes in self._open.values():
            passes.set()

    def slow_down(self, delay_s: float) -> None:
        """Pass one chunk each `delay_s` seconds in each direction."""
        self._delay_s = delay_s

    def cut(self) -> None:
        """Close all connections. New ones are accepted."""
        with self._lock:
            cut, self._connections = self._connections, []
        for pair in cut:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End everything."""
        self._is_closed.set()
        self.go_on()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(60)

    def _accept(self) -> None:
        while not self._is_closed.is_set():
            try:
                host, _ = self._listener.accept()
            except OSError:
                return
            try:
                front = socket.create_connection(self._target, 5.0)
            except OSError:
                host.close()
                continue
            front.settimeout(None)
            with self._lock:
                self.n_accepted += 1
                self._connections.append((host, front))
            thread = threading.Thread(target=self._serve, args=(host, front))
            self._threads.append(thread)
            thread.start()

    def _serve(self, host: socket.socket, front: socket.socket) -> None:
        """One connection, until both directions have ended."""
        with host, front:
            back = threading.Thread(target=self._pass_on, args=(Way.TO_HOST, front, host))
            back.start()
            self._pass_on(Way.TO_FRONT, host, front)
            back.join()

    def _pass_on(self, way: Way, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                if self._delay_s:
                    self._is_closed.wait(self._delay_s)
                self._open[way].wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxies(target: str, *names: str) -> Iterator[dict[str, Proxy]]:
    """A proxy of its own for each machine."""
    made = {name: Proxy(target) for name in names}
    try:
        yield made
    finally:
        for proxy in made.values():
            proxy.close()
