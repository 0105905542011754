"""The front's end of all hosts' connections: one ROUTER on tcp with CURVE.

A peer passes three doors before it is a host: the handshake (it knows the front's public key, which
hosts pin), the doorkeeper (its own key is in the book), and its hello (versions, one lease for each
host). Everything else is dropped, counted and cut.

A closed connection means that its host is lost at once. So does silence for `silence_s`; time in
which the front did not look does not count.
"""

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable

import zmq
from msgspec import Struct
from zmq.utils import z85

from gpufc.errors import LinkError, StartError
from gpufc.ids import Epoch
from gpufc.protocol import PROTOCOL_VERSION
from supervisor.cluster import connections, wire
from supervisor.cluster.book import HostBook, JoinRefused
from supervisor.cluster.connections import Connections
from supervisor.cluster.doorkeeper import DOMAIN, Doorkeeper
from supervisor.cluster.keys import KeyPair
from supervisor.cluster.messages import (
    HOST_PROTOCOL,
    LEASE_S,
    MAX_HELLO_BYTES,
    HostHello,
    Lease,
    Refused,
    ToHost,
    Welcome,
)
from supervisor.cluster.port import FrameListener, Hosts
from supervisor.socket_reader import SocketReader

logger = logging.getLogger(__name__)

SEND_LIMIT = 100_000
"""Messages that may wait for a host that does not read."""

RECEIVE_LIMIT = 10_000

LEAST_PAUSE_S = 0.01
"""Between two looks: a silence that is just as long as its limit must not spin."""

_NOBLOCK, _SNDMORE = map(int, (zmq.NOBLOCK, zmq.NOBLOCK | zmq.SNDMORE))


class Limits(Struct, frozen=True, kw_only=True):
    """The listener's limits, in seconds unless the name says otherwise."""

    lease_s: float = LEASE_S
    silence_s: float = 5.0
    pending_s: float = connections.PENDING_S
    most_pending: int = connections.MOST_PENDING
    late_s: float = 1.0
    """A look that is later than this means that the front was suspended or busy."""

    @property
    def look_s(self) -> float:
        """The longest time between two looks, each with a `Lease` for every host."""
        return min(1.0, self.lease_s / 4, self.silence_s / 4)

    def pause_s(self, silent_s: float) -> float:
        """Time to the next look, with the longest silence of a host: a verdict does not wait for
        the look after."""
        return max(LEAST_PAUSE_S, min(self.look_s, self.silence_s - silent_s))


class Channel:
    """Implements `port.HostChannel`. Its listener makes it from a hello and owns its end."""

    def __init__(
        self,
        listener: "HostListener",
        peer: bytes,
        fd: int,
        machine: str,
        hello: HostHello,
        *,
        is_new: bool,
    ) -> None:
        self.machine = machine
        self.hello = hello
        self.is_new = is_new
        self.heard_at = listener.clock()
        self.dropped: Counter[str] = Counter()
        self.is_lost = False
        self.peer = peer
        self.fd = fd
        self.frames: dict[Epoch, FrameListener] = {}
        self._listener = listener
        self._early: list[bytes] | None = []

    def send(self, message: ToHost) -> None:
        self._queue(wire.control(message))

    def send_frame(self, epoch: Epoch, payload: bytes) -> None:
        self._queue(wire.relayed(epoch, payload))

    def listen(self, epoch: Epoch, on_frame: FrameListener) -> None:
        self.frames[epoch] = on_frame

    def unlisten(self, epoch: Epoch) -> None:
        self.frames.pop(epoch, None)

    def cut(self, reason: str) -> None:
        self._listener.lose(self, reason)

    def welcome(self, message: Welcome) -> None:
        """Send the answer to the hello, then what was queued before."""
        early, self._early = self._early or [], None
        for data in (wire.control(message), *early):
            self._queue(data)

    def _queue(self, data: bytes) -> None:
        if self.is_lost:
            self.dropped["unsent"] += 1
        elif self._early is not None:
            self._early.append(data)
        else:
            self._listener.transmit(self, data)


class HostListener:
    """Bound from construction until `close`. All methods belong to the event loop's thread."""

    def __init__(
        self,
        book: HostBook,
        hosts: Hosts,
        endpoint: str,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Bind `endpoint`, such as `tcp://10.0.0.1:8090`. Raises `StartError`."""
        self.run = secrets.token_hex(8)
        self.dropped: Counter[str] = Counter()
        self.clock = clock
        self._book = book
        self._hosts = hosts
        self._limits = limits
        self._channels: dict[bytes, Channel] = {}
        self._loop = asyncio.get_running_loop()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, 64)
        self._doorkeeper = Doorkeeper(self._context, book.admits)
        self._socket = _server(self._context, book.front, limits)
        if "[" in endpoint:
            self._socket.setsockopt(zmq.IPV6, 1)
        self._connections = Connections(
            self._socket,
            self._on_closed,
            most_pending=limits.most_pending,
            pending_s=limits.pending_s,
            clock=clock,
        )
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as err:
            self._close_sockets()
            raise StartError(f"cannot listen for hosts on {endpoint}: {err.strerror}") from err
        self.endpoint = self._socket.get_string(zmq.LAST_ENDPOINT)
        self._reader = SocketReader(self._socket, self._take)
        self._look_due = clock() + limits.look_s
        self._timer = self._loop.call_later(limits.look_s, self._look)

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The joined hosts' channels."""
        return tuple(self._channels.values())

    def figures(self) -> dict[str, int]:
        """Counts for the metrics: connections, peers that were turned away."""
        return {
            "accepted": self._connections.n_accepted,
            "pending": self._connections.n_pending,
            "cut": self._connections.n_cut,
            "strangers": self._doorkeeper.n_refused,
            **self.dropped,
        }

    def close(self) -> None:
        """Close all connections. Every channel is lost first. May be called again."""
        if self._context.closed:
            return
        for channel in self.channels:
            self.lose(channel, "the front ends")
        self._timer.cancel()
        self._reader.close()
        self._close_sockets()

    def lose(self, channel: Channel, reason: str) -> None:
        """Give a channel up. May be called again."""
        if channel.is_lost:
            return
        channel.is_lost = True
        channel.frames.clear()
        self._channels.pop(channel.peer, None)
        self._connections.cut(channel.fd)
        logger.warning("host_lost machine=%s: %s", channel.machine, reason)
        self._hosts.lost(channel, reason)

    def transmit(self, channel: Channel, data: bytes) -> None:
        """Queue a frame for a host. Never blocks."""
        try:
            self._socket.send(channel.peer, _SNDMORE)
            self._socket.send(data, _NOBLOCK)
        except zmq.Again:
            self._lose_soon(channel, f"{SEND_LIMIT} messages wait and the host does not read")
        except zmq.ZMQError as err:
            channel.dropped["unsent"] += 1
            self._lose_soon(channel, f"the connection is gone: {err.strerror}")
        self._reader.look_soon()

    def _lose_soon(self, channel: Channel, reason: str) -> None:
        # a sender does not expect its own loss while it sends
        self._loop.call_soon(self.lose, channel, reason)

    def _close_sockets(self) -> None:
        self._connections.close()
        self._doorkeeper.close()
        self._socket.close(linger=0)
        self._context.term()

    def _take(self) -> None:
        receive = self._socket.recv
        sender = receive(_NOBLOCK)
        channel = self._channels.get(sender)
        if channel is None:
            self._from_stranger(sender)
            return
        data = receive(_NOBLOCK)
        if self._socket.getsockopt(zmq.RCVMORE):
            self._skip_rest()
            self.lose(channel, "the host sent a message of several frames")
            return
        channel.heard_at = self.clock()
        try:
            self._from_host(channel, data)
        except LinkError as err:
            self.lose(channel, f"the host broke the protocol: {err}")

    def _from_host(self, channel: Channel, data: bytes) -> None:
        epoch, payload = wire.split(data)
        if epoch == wire.CONTROL:
            message = wire.decode_from_host(payload)
            if isinstance(message, HostHello):
                raise LinkError("a second hello")
            self._hosts.message(channel, message)
        elif (on_frame := channel.frames.get(epoch)) is not None:
            on_frame(payload)
        else:
            channel.dropped["stale"] += 1

    def _from_stranger(self, sender: bytes) -> None:
        """A hello, or a message of a peer that is no host, or no longer one."""
        frame = self._socket.recv(_NOBLOCK, copy=False)
        whole = not frame.more
        self._skip_rest()
        fd = int(frame.get(zmq.SRCFD))
        hello = _hello_in(frame.bytes) if whole and len(frame) <= MAX_HELLO_BYTES else None
        if hello is None:
            self.dropped["no_hello"] += 1
            self._connections.turn_away(fd)
            return
        try:
            self._join(sender, fd, str(frame.get("User-Id")), hello)
        except JoinRefused as err:
            self._refuse(sender, hello, err)

    def _join(self, sender: bytes, fd: int, key: str, hello: HostHello) -> None:
        if hello.protocol != HOST_PROTOCOL or hello.worker_protocol != PROTOCOL_VERSION:
            raise JoinRefused(
                f"the host has gpufc {hello.version} (protocols {hello.protocol} and "
                f"{hello.worker_protocol}), the front needs protocols {HOST_PROTOCOL} and "
                f"{PROTOCOL_VERSION}: install the same version on both"
            )
        machine = self._book.enter(key, hello, {one.machine for one in self.channels})
        for other in self.channels:
            if other.machine == machine:
                if other.hello.run != hello.run:
                    raise JoinRefused(f"another process is attached as {machine}", retryable=True)
                # its lines look for machines after this turn: then they find its workers
                self.lose(other, "the host has connected again")
                raise JoinRefused("its earlier connection has just been closed", retryable=True)
        if self._hosts.is_early(hello):
            raise JoinRefused("the models of its workers are being looked for", retryable=True)
        is_new = key != hello.key
        channel = Channel(self, sender, fd, machine, hello, is_new=is_new)
        self._channels[sender] = channel
        self._connections.hold(fd)
        logger.info("host_joined machine=%s cores=%d", machine, hello.cores)
        adopt = tuple(self._hosts.joined(channel))
        channel.welcome(Welcome(self.run, machine, self._limits.lease_s, adopt))

    def _refuse(self, sender: bytes, hello: HostHello, refusal: JoinRefused) -> None:
        """Say why. The peer closes the connection, or `cut_overdue` does."""
        self.dropped["refused"] += 1
        logger.warning("host_refused machine=%s: %s", hello.machine, refusal)
        answer = wire.control(Refused(str(refusal), refusal.retryable))
        try:
            self._socket.send(sender, _SNDMORE)
            self._socket.send(answer, _NOBLOCK)
        except zmq.ZMQError:
            self.dropped["unsent"] += 1
        self._reader.look_soon()

    def _skip_rest(self) -> None:
        while self._socket.getsockopt(zmq.RCVMORE):
            self._socket.recv(_NOBLOCK)

    def _on_closed(self, fd: int) -> None:
        self._reader.read_now(RECEIVE_LIMIT)  # its last messages; other hosts may never stop
        for channel in self.channels:
            if channel.fd == fd:
                self.lose(channel, "the connection was closed")

    def _look(self) -> None:
        """Renew all leases, and give up what is silent or overdue."""
        now = self.clock()
        late_s = now - self._look_due
        longest_s = 0.0
        for channel in self.channels:
            if late_s > self._limits.late_s:
                channel.heard_at = min(now, channel.heard_at + late_s)
            silent_s = now - channel.heard_at
            if silent_s > self._limits.silence_s:
                self.lose(channel, f"silent for {silent_s:.1f} s")
            else:
                longest_s = max(longest_s, silent_s)
                channel.send(Lease())
        self._connections.cut_overdue()
        pause_s = self._limits.pause_s(longest_s)
        self._look_due = now + pause_s
        self._timer = self._loop.call_later(pause_s, self._look)


def _hello_in(data: bytes) -> HostHello | None:
    try:
        epoch, payload = wire.split(data)
        message = wire.decode_from_host(payload)
    except LinkError:
        return None
    return message if epoch == wire.CONTROL and isinstance(message, HostHello) else None


def _server(
    context: "zmq.Context[zmq.Socket[bytes]]", pair: KeyPair, limits: Limits
) -> "zmq.Socket[bytes]":
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_FRAME_BYTES)
    socket.setsockopt(zmq.SNDHWM, SEND_LIMIT)
    socket.setsockopt(zmq.RCVHWM, RECEIVE_LIMIT)
    socket.setsockopt(zmq.HANDSHAKE_IVL, int(limits.pending_s * 1000))
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, z85.encode(bytes.fromhex(pair.secret)))
    socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    return socket
