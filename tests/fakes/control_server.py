"""A stand-in for GPUFabric's control server, with the real one's behaviour and its traps.

A second login under an id destroys the first session when its connection closes. A heartbeat blocks
its connection while no broker takes it. Anything that does not decode ends the connection. The
order of chunks is ignored. A task whose user has left is forgotten before its cancel is sent.
"""

import asyncio
import contextlib
import ssl
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Self

from supervisor.fabric.codec import HEADER, ProtocolError, decode_frame, encode_frame, frame_size
from supervisor.fabric.messages import (
    CancelInference,
    ChatInferenceTask,
    ChatMessage,
    Command,
    Heartbeat,
    InferenceResultChunk,
    InferenceTask,
    Login,
    LoginResult,
    ModelDownloadProgress,
    ModelStatus,
    NewProxyConn,
    OsType,
    PodModel,
    PullModelResult,
    RequestNewProxyConn,
)
from tests.ports import free_port

CLIENT_ID = bytes.fromhex("00112233445566778899aabbccddeeff")


class Panic(Exception):
    """The real server would have died."""


class Peer:
    """One connection to the control port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.client_id: bytes | None = None
        """Set by any login, also by one that is refused."""

    def send(self, message: Command) -> None:
        self.writer.write(encode_frame(message))

    def send_split(self, message: Command) -> None:
        """Write a message byte by byte."""
        for byte in encode_frame(message):
            self.writer.write(bytes((byte,)))


class Answer:
    """What the server's user gets of one task."""

    def __init__(self) -> None:
        self.chunks: list[InferenceResultChunk] = []
        self.done = asyncio.Event()

    def text(self, phase: int | None = None) -> str:
        return "".join(c.delta for c in self.chunks if phase is None or c.phase == phase)

    async def end(self) -> InferenceResultChunk:
        await self.done.wait()
        return self.chunks[-1]


class ControlServer:
    """Use as an async context. `client` is the session of the machine that is logged in."""

    def __init__(
        self, *, tls: ssl.SSLContext | None = None, proxy_tls: ssl.SSLContext | None = None
    ):
        self.valid = {CLIENT_ID}
        self.active: dict[bytes, Peer] = {}
        self.online: set[bytes] = set()
        self.models: dict[bytes, list[str]] = {}
        self.answers: dict[str, Answer] = {}
        """The real server's `partial_results`: an entry without a `done` chunk stays for ever."""
        self.logins: list[Login] = []
        self.heartbeats: list[Heartbeat] = []
        self.unknown_chunks: list[InferenceResultChunk] = []
        self.pods: list[PodModel] = []
        self.downloads: list[ModelDownloadProgress] = []
        self.faults: list[BaseException] = []
        self.broker = asyncio.Event()
        """Set while a broker takes heartbeats."""
        self.broker.set()
        self.answers_status = True
        self.accepts_login = True
        self.port = free_port()
        self.proxy_port = 0 if proxy_tls is None else free_port()
        self.n_connections = 0
        self._parked: dict[bytes, asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
        self._parked = {}
        self._tls, self._proxy_tls = tls, proxy_tls
        self._changed = asyncio.Condition()
        self._servers: list[asyncio.Server] = []
        self.peers: set[Peer] = set()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def listen(self) -> None:
        """Listen, on the same ports each time."""
        control = await asyncio.start_server(
            self._control, "127.0.0.1", self.port, ssl=self._tls, backlog=100
        )
        self._servers = [control]
        if self._proxy_tls is not None:
            proxy = await asyncio.start_server(
                self._proxied, "127.0.0.1", self.proxy_port, ssl=self._proxy_tls
            )
            self._servers.append(proxy)

    async def stop(self) -> None:
        """End as a server that is killed: all connections are cut."""
        for server in self._servers:
            server.close()
        self.cut()
        for peer in tuple(self.peers):
            with contextlib.suppress(OSError):
                await peer.writer.wait_closed()
        self.active.clear()
        self.online.clear()
        await self.until(lambda: not self.peers)

    def cut(self) -> None:
        """Cut all connections, and go on listening."""
        for peer in tuple(self.peers):
            peer.writer.transport.abort()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so. It is asked after each message and each end."""
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(condition)

    async def joined(self) -> Peer:
        """The session of the machine, once it is logged in and has told its models."""
        await self.until(lambda: CLIENT_ID in self.active and CLIENT_ID in self.models)
        return self.active[CLIENT_ID]

    # the users' side

    def complete(self, peer: Peer, prompt: str, **sampling: float) -> str:
        """Send a task; its id."""
        task_id = self._new_task()
        peer.send(InferenceTask(task_id, prompt, **_sampling(sampling)))
        return task_id

    def chat(self, peer: Peer, content: str, model: str, **sampling: float) -> str:
        task_id = self._new_task()
        messages = [ChatMessage("user", content)]
        peer.send(ChatInferenceTask(task_id, model, messages, **_sampling(sampling)))
        return task_id

    def leave(self, peer: Peer, task_id: str) -> None:
        """A task's user has left: the server forgets the stream first, then cancels."""
        del self.answers[task_id]
        peer.send(CancelInference(task_id))

    async def user(self, peer: Peer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A user's connection, once the machine has opened its end."""
        conn_id = uuid.uuid4().bytes
        self._parked[conn_id] = asyncio.get_running_loop().create_future()
        peer.send(RequestNewProxyConn(conn_id))
        async with asyncio.timeout(60):
            return await self._parked[conn_id]

    def _new_task(self) -> str:
        task_id = str(uuid.uuid4())
        self.answers[task_id] = Answer()
        return task_id

    # the machine's side

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.add(peer)
        self.n_connections += 1
        try:
            while True:
                n_bytes = frame_size(await reader.readexactly(HEADER.size))
                await self._handle(peer, decode_frame(await reader.readexactly(n_bytes)))
                await self._notify()
        except (EOFError, OSError, ProtocolError):
            pass
        except Exception as err:
            self.faults.append(err)
        finally:
            self._forget(peer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self.peers.discard(peer)
            await self._notify()

    def _forget(self, peer: Peer) -> None:
        """A connection has ended: the session of its id goes, whether or not it was this one's."""
        if peer.client_id is not None:
            self.active.pop(peer.client_id, None)
            self.online.discard(peer.client_id)
            self.models.pop(peer.client_id, None)

    async def _handle(self, peer: Peer, message: Command) -> None:
        match message:
            case Login():
                self._login(peer, message)
            case ModelStatus(client_id, models):
                self.models[client_id] = [model.id for model in models]
                if self.answers_status:
                    pods = self.pods if message.auto_models_device else []
                    peer.send(PullModelResult(pods, None))
            case Heartbeat():
                await self.broker.wait()
                self._beat(message)
            case InferenceResultChunk():
                self._chunk(message)
            case ModelDownloadProgress():
                self.downloads.append(message)

    def _login(self, peer: Peer, message: Login) -> None:
        self.logins.append(message)
        if message.os_type is OsType.NONE:
            raise Panic("os_type_str(NONE).unwrap()")
        if not self.accepts_login:
            return
        is_taken = message.client_id in self.active
        peer.client_id = message.client_id
        if is_taken:
            peer.send(LoginResult(False, [], "Client ID already registered"))
        elif message.client_id not in self.valid:
            peer.send(LoginResult(False, [], "Invalid client ID"))
        else:
            self.active[message.client_id] = peer
            peer.send(LoginResult(True, [], None))

    def _beat(self, message: Heartbeat) -> None:
        (devices,) = message.devices_info
        if not 1 <= devices.num <= 8:
            raise Panic(f"{devices.num} devices")
        self.heartbeats.append(message)
        if message.client_id in self.active:
            self.online.add(message.client_id)

    def _chunk(self, chunk: InferenceResultChunk) -> None:
        answer = self.answers.get(chunk.task_id)
        if answer is None:
            self.unknown_chunks.append(chunk)
            return
        answer.chunks.append(chunk)
        if chunk.done:
            answer.done.set()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _proxied(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, OSError):
            n_bytes = frame_size(await reader.readexactly(HEADER.size))
            message = decode_frame(await reader.readexactly(n_bytes))
            if isinstance(message, NewProxyConn) and message.proxy_conn_id in self._parked:
                self._parked.pop(message.proxy_conn_id).set_result((reader, writer))
                return
        writer.close()


def _sampling(given: dict[str, float]) -> dict[str, float]:
    """The values that the real server fills in."""
    return {
        "max_tokens": 4090,
        "temperature": 0.7,
        "top_k": 40,
        "top_p": 0.9,
        "repeat_penalty": 1.1,
        "repeat_last_n": 64,
        "min_keep": 1,
    } | given


@contextlib.asynccontextmanager
async def control_server(**options: ssl.SSLContext | None) -> AsyncIterator[ControlServer]:
    """A server that listens. Fails the test if the real one would have died."""
    server = ControlServer(**options)
    async with server:
        yield server
    assert server.faults == []
