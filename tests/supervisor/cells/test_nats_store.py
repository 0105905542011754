"""The options for NATS' client: secrets, encryption, and what is refused. No server is asked."""

import asyncio
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpufc.config import CellsConfig
from gpufc.errors import ConfigError
from supervisor.cells.chain import Message
from supervisor.cells.nats_store import NatsStore, options_of
from supervisor.cells.port import Away, Refused
from tests.supervisor.dispatch.fakes import until

LOCAL = "nats://127.0.0.1:4222"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("me:a:secret\n")
    path.chmod(0o600)
    return path


def test_credentials_are_a_user_with_a_password_or_a_token(secret: Path) -> None:
    config = CellsConfig(cells_nats=LOCAL, cells_credentials=str(secret))
    found = options_of(config)
    assert (found["user"], found["password"]) == ("me", "a:secret")
    secret.write_text("token\n")
    assert options_of(config)["token"] == "token"


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_file_that_others_can_read_is_refused(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        options_of(CellsConfig(cells_nats=LOCAL, cells_credentials=str(secret)))


@pytest.mark.parametrize("text", ["", "one\ntwo"])
def test_a_file_without_one_line_is_refused(secret: Path, text: str) -> None:
    secret.write_text(text)
    with pytest.raises(ConfigError, match="one line"):
        options_of(CellsConfig(cells_nats=LOCAL, cells_credentials=str(secret)))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for key in ("cells_credentials", "cells_tls_ca", "cells_tls_cert"):
        config = CellsConfig(cells_nats="tls://10.0.0.5:4222", **{key: str(tmp_path / "none")})
        with pytest.raises(ConfigError, match="cells_"):
            options_of(config)


@pytest.mark.parametrize(
    ("servers", "is_allowed"),
    [
        ("nats://127.0.0.1:4222", True),
        ("nats://localhost:4222,nats://[::1]:4222", True),
        ("tls://10.0.0.5:4222", True),
        ("nats://10.0.0.5:4222", False),
        ("nats://127.0.0.1:4222,nats://nats.example.org:4222", False),
        ("tls://10.0.0.5:4222,nats://10.0.0.6:4222", False),
    ],
)
def test_prompts_cross_no_network_unencrypted_unless_it_is_allowed(
    servers: str, is_allowed: bool
) -> None:
    if not is_allowed:
        with pytest.raises(ConfigError, match="cells_plaintext"):
            options_of(CellsConfig(cells_nats=servers))
    found = options_of(CellsConfig(cells_nats=servers, cells_plaintext=not is_allowed))
    assert ("tls" in found) is ("tls://" in servers)


def test_without_the_client_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nats", None)
    with pytest.raises(ConfigError, match=r"gpufc\[cells\]"):
        NatsStore(CellsConfig(cells_nats=LOCAL))


async def test_a_client_that_does_not_close_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    n_made = 0

    class Hanging:
        is_closed = is_connected = False

        def __init__(self) -> None:
            nonlocal n_made
            n_made += 1

        async def connect(self, **_options: object) -> None:
            raise OSError("refused")

        async def close(self) -> None:
            await asyncio.Event().wait()

    for name in ("ANSWER_S", "RETRY_S"):
        monkeypatch.setattr(f"supervisor.cells.nats_store.{name}", 0.001)
    monkeypatch.setattr("supervisor.cells.nats_store._client_class", lambda: Hanging)
    store = NatsStore(CellsConfig(cells_nats=LOCAL))
    store.start()
    await until(lambda: n_made > 2)
    assert store._connecting is not None
    store._connecting.cancel()


async def test_a_front_beats_while_the_stream_has_no_leader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A silent front would lose its requests to another one that has nothing to write."""
    errors = pytest.importorskip("nats.errors")
    beats, asked = list[bytes](), list[str]()

    class Leaderless:
        is_closed, is_connected, max_payload = False, True, 1 << 20

        async def connect(self, **_options: object) -> None:
            pass

        async def subscribe(self, _subject: str, cb: object) -> None:
            pass

        async def publish(self, _subject: str, data: bytes) -> None:
            beats.append(data)

        def jetstream(self, timeout: float) -> "Leaderless":
            return self

        async def stream_info(self, name: str) -> None:
            asked.append(name)
            raise errors.TimeoutError

        async def close(self) -> None:
            raise AssertionError("another connection is not better")

    monkeypatch.setattr("supervisor.cells.nats_store.RETRY_S", 0.001)
    monkeypatch.setattr("supervisor.cells.nats_store._client_class", lambda: Leaderless)
    store = NatsStore(CellsConfig(cells_nats=LOCAL))
    store.start()
    await until(lambda: len(asked) > 2)
    store.beat(b"alive")
    await until(lambda: beats == [b"alive"])
    assert not store.is_connected
    assert store._connecting is not None
    store._connecting.cancel()


async def test_a_message_does_not_follow_one_that_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request was deleted and asked for again at another front: its old front's end is no part of
    the new one's records."""
    client = partial(SimpleNamespace, is_clustered=False)
    monkeypatch.setattr("supervisor.cells.nats_store._client_class", lambda: client)
    store, kept = NatsStore(CellsConfig(cells_nats=LOCAL)), [Message(4, 0, b"old")]

    async def publish(_subject: str, data: bytes, follows: int, last: int) -> int:
        if kept[-1].number != last:
            raise Refused("wrong last sequence")
        kept.append(Message(last + 1, follows, data))
        return last + 1

    async def messages(_subject: str, after: int) -> list[Message]:
        return [one for one in kept if one.number > after]

    monkeypatch.setattr(store, "_publish", publish)
    monkeypatch.setattr(store, "_messages", messages)
    kept.append(Message(5, 0, b"came at once with the old one"))
    assert await store.append("request.x", b"end", 4) == 6
    kept[:] = [Message(7, 0, b"new")]
    with pytest.raises(Refused):
        await store.append("request.x", b"end", 4)
    assert len(kept) == 1


@pytest.mark.parametrize(
    ("there", "error"),
    [
        ([Message(8, 5, b"mine")], None),
        ([Message(7, 5, b"came first"), Message(8, 5, b"mine")], Refused),
        ([Message(7, 3, b"does not count"), Message(8, 5, b"mine")], None),
        ([], Away),
    ],
)
@pytest.mark.parametrize("is_clustered", [True, False])
async def test_in_a_cluster_a_stored_message_counts_if_it_is_the_first_of_its_place(
    monkeypatch: pytest.MonkeyPatch,
    there: list[Message],
    error: type[Exception] | None,
    is_clustered: bool,
) -> None:
    """A server alone compares and stores at once. A stream may get copies later, so the servers
    tell, and not the stream as it was."""

    client = partial(SimpleNamespace, is_clustered=is_clustered)
    monkeypatch.setattr("supervisor.cells.nats_store._client_class", lambda: client)
    store, n_read = NatsStore(CellsConfig(cells_nats=LOCAL)), 0

    async def publish(_subject: str, _data: bytes, _follows: int, _last: int) -> int:
        return 8

    async def each(_subject: str, _after: int) -> AsyncIterator[Message]:
        nonlocal n_read
        for one in there:
            n_read += 1
            yield one

    monkeypatch.setattr(store, "_publish", publish)
    monkeypatch.setattr(store, "_each", each)
    if error is None or not is_clustered:
        assert await store.append("log.x", b"mine", 5) == 8
    else:
        with pytest.raises(error):
            await store.append("log.x", b"mine", 5)
    if is_clustered and there:
        assert n_read == there.index(next(one for one in there if one.follows == 5)) + 1
    else:
        assert n_read == 0
