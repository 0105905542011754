"""The shared store by NATS JetStream. The only import of NATS' client.

One stream has the records of a group of fronts. A message counts only if the subject's last one has
the expected number, which JetStream checks, and `chain` again for a cluster: so of two fronts that
write to one subject, one is refused. Beats are plain messages of NATS, which are not stored.
"""

import asyncio
import contextlib
import hashlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from gpufc.config import CellsConfig
from gpufc.errors import ConfigError
from supervisor.cells.chain import Message, chained, follows, place_behind
from supervisor.cells.port import Away, Refused

logger = logging.getLogger(__name__)

T = TypeVar("T")

ANSWER_S = 2.0
"""The store has not answered after this time."""

RETRY_S = 1.0
"""Between two attempts to connect."""

ELECTING_S = 10.0
"""A stream that does not answer for longer may do so by another server."""

WRONG_LAST_SEQUENCE, NO_STREAM = 10071, 10059
"""JetStream's error codes."""

FIRST_NUMBER = 1
"""Of a stream's messages."""

LAST, FOLLOWS = "Nats-Expected-Last-Subject-Sequence", "Gpufc-Follows"
"""Headers: the last message of the subject, and the last one that counts (`chain`)."""

KEPT_S = 24 * 3600.0
"""The greatest age of a message. Fronts that live forget their records before."""

SPARE_BYTES = 4096
"""Of a message, for its headers."""


class NatsStore:
    """Implements `Store`. In the event loop; nothing blocks it."""

    def __init__(self, config: CellsConfig) -> None:
        """Raises `ConfigError`: no client, unusable files, plaintext that is not allowed."""
        self._client_class = _client_class()
        self._client = self._client_class()
        self._config = config
        self._options = options_of(config)
        self._stream = config.cells_group
        self._heard: Callable[[bytes], None] = lambda _data: None
        self._connecting: asyncio.Task[None] | None = None
        self._is_made = False
        self._doubted = asyncio.Event()
        self._beats: set[asyncio.Task[None]] = set()

    @property
    def is_connected(self) -> bool:
        return bool(self._client.is_connected) and self._is_made

    @property
    def most_bytes(self) -> int:
        return max(SPARE_BYTES, int(self._client.max_payload) - SPARE_BYTES)

    def start(self) -> None:
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())

    def listen(self, heard: Callable[[bytes], None]) -> None:
        self._heard = heard

    async def append(self, subject: str, data: bytes, expected: int) -> int:
        last = expected
        while True:
            try:
                number = await self._publish(subject, data, expected, last)
            except Refused:
                there = await self._messages(subject, max(0, expected - 1))
                if (free := place_behind(there, expected)) is None:
                    raise
                last = free
                continue
            # a stream of one server may have got copies since
            if self._client.is_clustered and await self._next(subject, expected) != number:
                raise Refused("another message came at once with this one")
            return number

    async def _next(self, subject: str, after: int) -> int:
        """The number of the message that counts behind `after`. Raises `Away`."""
        async for one in self._each(subject, after):
            if follows(one, after):
                return one.number
        raise Away("NATS has a new leader that lags behind")

    async def read(self, subject: str, after: int = 0) -> list[tuple[int, bytes]]:
        there = await self._messages(subject, after)
        return [(one.number, one.data) for one in chained(there, after)]

    async def _publish(self, subject: str, data: bytes, follows: int, last: int) -> int:
        """Store a message behind the subject's message `last`. Raises `Refused` and `Away`."""
        from nats.js.errors import APIError

        digest = hashlib.sha256(b"%d %b %b" % (follows, subject.encode(), data)).hexdigest()
        headers = {
            LAST: str(last),
            FOLLOWS: str(follows),
            "Nats-Msg-Id": digest[:32],  # one whose answer was lost is not stored twice
        }
        publishing = self._jetstream.publish(
            self._subject(subject), data, timeout=ANSWER_S, stream=self._stream, headers=headers
        )
        try:
            return int((await self._answer(publishing)).seq)
        except APIError as err:
            if err.err_code == WRONG_LAST_SEQUENCE:
                raise Refused(str(err)) from err
            raise Away(str(err)) from err

    async def _messages(self, subject: str, after: int) -> list[Message]:
        """All of the subject's messages behind a number."""
        return [one async for one in self._each(subject, after)]

    async def _each(self, subject: str, after: int) -> AsyncIterator[Message]:
        """The same, one read for each, and one at the end."""
        from nats.js.errors import APIError, NotFoundError

        while True:
            # by the leader: another server of the cluster may lag behind
            getting = self._jetstream.get_msg(
                self._stream, seq=after + 1, subject=self._subject(subject), next=True
            )
            try:
                message = await self._answer(getting)
            except NotFoundError as err:
                if err.err_code == NO_STREAM:
                    self._doubted.set()
                    raise Away(str(err)) from err
                return
            except APIError as err:
                raise Away(str(err)) from err
            after, headers = int(message.seq or 0), message.headers or {}
            named = int(headers.get(FOLLOWS, headers.get(LAST, 0)))
            yield Message(after, named, message.data or b"")

    async def purge(self, subject: str, before: int | None = None) -> None:
        from nats.js.errors import APIError

        if before is not None and before <= FIRST_NUMBER:
            return  # NATS would take it for no number, and forget all
        purging = self._jetstream.purge_stream(
            self._stream, seq=before, subject=self._subject(subject)
        )
        try:
            await self._answer(purging)
        except APIError as err:
            raise Away(str(err)) from err

    async def runs(self) -> list[str]:
        from nats.js.errors import APIError

        prefix = self._subject("log.")
        asking = self._jetstream.stream_info(self._stream, subjects_filter=f"{prefix}*")
        try:
            info = await self._answer(asking)
        except APIError as err:
            raise Away(str(err)) from err
        return [subject.removeprefix(prefix) for subject in info.state.subjects or {}]

    def beat(self, data: bytes) -> None:
        # the front lives, also while JetStream elects a leader and the stream does not answer
        if self._client.is_connected:
            task = asyncio.create_task(self._beat(data))
            self._beats.add(task)
            task.add_done_callback(self._beats.discard)

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        with contextlib.suppress(TimeoutError, Exception):  # the process ends
            async with asyncio.timeout(1.0):
                await asyncio.gather(*self._beats)
                await self._client.close()

    # inside

    @property
    def _jetstream(self) -> Any:
        return self._client.jetstream(timeout=ANSWER_S)

    def _subject(self, subject: str) -> str:
        return f"gpufc.{self._config.cells_group}.{subject}"

    async def _answer(self, call: Coroutine[Any, Any, T]) -> T:
        """The answer of a call. JetStream's errors pass through; raises `Away` for all others."""
        from nats.errors import Error
        from nats.js.errors import APIError, NoStreamResponseError

        if not self._client.is_connected:
            call.close()
            raise Away("there is no connection to NATS")
        try:
            return await call
        except APIError:
            raise
        except NoStreamResponseError as err:
            self._doubted.set()
            raise Away("NATS has no such stream") from err
        except (Error, OSError) as err:
            raise Away(str(err) or type(err).__name__) from err

    async def _beat(self, data: bytes) -> None:
        with contextlib.suppress(Away):
            await self._answer(self._client.publish(self._subject("beat"), data))

    async def _connect(self) -> None:
        """Be connected, for ever. The client connects again by itself, unless it is turned away."""

        async def heard(message: Any) -> None:
            self._heard(message.data)

        while True:
            closed = asyncio.Event()

            async def closed_now(closed: asyncio.Event = closed) -> None:
                closed.set()
                self._doubted.set()

            self._client = self._client_class()
            try:
                await self._client.connect(**self._options, closed_cb=closed_now)
                await self._client.subscribe(self._subject("beat"), cb=heard)
                while not closed.is_set():
                    self._doubted.clear()
                    await self._have_stream()
                    self._is_made = True
                    await self._doubted.wait()
                    self._is_made = False
            except Exception as err:  # whatever the client raises: it is tried again
                logger.warning("cells_store_unusable error=%s", err or type(err).__name__)
            self._is_made = False
            if not self._client.is_closed:
                with contextlib.suppress(Exception):  # a new one follows
                    async with asyncio.timeout(ANSWER_S):
                        await self._client.close()
            await asyncio.sleep(RETRY_S)

    async def _have_stream(self) -> None:
        """As `_make_stream`, and patient: another connection would end beats for a moment."""
        until = time.monotonic() + ELECTING_S
        while True:
            try:
                return await self._make_stream()
            except Away as err:
                if time.monotonic() > until or not self._client.is_connected:
                    raise
                logger.warning("cells_stream_unusable error=%s", err)
            await asyncio.sleep(RETRY_S)

    async def _make_stream(self) -> None:
        """The group's stream, unless it exists. Raises `Away`."""
        from nats.js import api
        from nats.js.errors import APIError, NotFoundError

        config = api.StreamConfig(
            name=self._stream,
            subjects=[self._subject("log.*"), self._subject("request.*")],
            max_age=KEPT_S,
            max_bytes=self._config.cells_max_bytes,
            discard=api.DiscardPolicy.NEW,
            num_replicas=self._config.cells_copies,
        )
        try:
            await self._answer(self._jetstream.stream_info(self._stream))
            return
        except NotFoundError:
            pass
        except APIError as err:
            raise Away(str(err)) from err
        try:
            await self._answer(self._jetstream.add_stream(config))
        except APIError as err:
            raise Away(str(err)) from err


def _client_class() -> type[Any]:
    """The client. Raises `ConfigError` without it."""
    try:
        from nats import NATS
        from nats.errors import Error
    except ImportError as err:
        raise ConfigError(
            "cells_nats is set, and NATS' client is not installed: install `gpufc[cells]`, or leave"
            " cells_nats out"
        ) from err

    class Client(NATS):  # type: ignore[misc]
        """Turns away a server without TLS where TLS is wanted. The library would send it the
        credentials in plain text. `is_clustered`: the server is one of a cluster."""

        is_clustered = False

        async def _process_info(
            self, info: dict[str, Any], initial_connection: bool = False
        ) -> None:
            if self.options.get("tls") is not None and not info.get("tls_required"):
                raise Error("nats: the server does not offer TLS")
            self.is_clustered = bool(info.get("cluster"))
            await super()._process_info(info, initial_connection=initial_connection)

    return Client


class Trouble:
    """The client's errors for the log, each text once in a row: it tries again and again."""

    def __init__(self) -> None:
        self._last = ""

    async def note(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if text != self._last:
            self._last = text
            logger.warning("cells_store_trouble error=%s", text)


def options_of(config: CellsConfig) -> dict[str, Any]:
    """The client's options. Raises `ConfigError`."""
    servers = (config.cells_nats or "").split(",")
    check_encryption(servers, config)
    options: dict[str, Any] = {
        "servers": servers,
        "name": "gpufc",
        "error_cb": Trouble().note,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.25,
        "connect_timeout": 2,
        "ping_interval": max(0.5, config.cells_lease_s / 8),
        "max_outstanding_pings": 2,
        "pending_size": 0,  # a message that would be sent after a reconnection is an error now
    }
    if config.cells_credentials is not None:
        options |= _credentials(Path(config.cells_credentials))
    if any(server.startswith("tls://") for server in servers):
        options["tls"] = _tls(config)
    return options


def check_encryption(servers: list[str], config: CellsConfig) -> None:
    """Raises `ConfigError` for prompts that would go over a network unencrypted."""
    for server in servers:
        host = server.partition("://")[2].rpartition(":")[0].strip("[]")
        is_local = host in {"127.0.0.1", "::1", "localhost"}
        if not (server.startswith("tls://") or is_local or config.cells_plaintext):
            raise ConfigError(
                f"prompts and answers would go to {server} unencrypted: use tls://, or allow it"
                " with cells_plaintext = true"
            )


def _credentials(path: Path) -> dict[str, str]:
    try:
        mode, text = path.stat().st_mode, path.read_text().strip()
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"cells_credentials {path} cannot be read: {err}") from err
    if mode & 0o077:
        raise ConfigError(f"cells_credentials {path} can be read by others: chmod 600 {path}")
    if not text or "\n" in text:
        raise ConfigError(f"cells_credentials {path} must have one line, USER:PASSWORD or a token")
    user, colon, password = text.partition(":")
    return {"user": user, "password": password} if colon else {"token": text}


def _tls(config: CellsConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.cells_tls_ca)
        if config.cells_tls_cert is not None:
            context.load_cert_chain(config.cells_tls_cert)
    except (OSError, ssl.SSLError) as err:
        raise ConfigError(f"cells_tls_ca or cells_tls_cert cannot be used: {err}") from err
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
