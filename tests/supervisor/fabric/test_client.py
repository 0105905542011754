"""The session with a control server: login, liveness, reconnecting, leaving."""

import asyncio
import logging

import pytest

from supervisor.fabric import session
from supervisor.fabric.messages import (
    P2PCancelInference,
    P2PConnectionConfig,
    RequestNewProxyConn,
)
from supervisor.fabric.session import Phase
from tests.fakes.control_server import CLIENT_ID, ControlServer, control_server
from tests.leaks import nothing_leaks
from tests.supervisor.dispatch.fakes import FAILED, MODEL, OK, text_of, until
from tests.supervisor.fabric.conftest import machine

pytestmark = pytest.mark.usefixtures("quick")


async def test_a_machine_logs_in_tells_its_models_and_is_online(server: ControlServer) -> None:
    async with machine(server) as joined:
        await server.joined()
        await server.until(lambda: server.online)
        (login,) = server.logins
        assert (login.client_id, login.version, login.auto_models) == (CLIENT_ID, 1, False)
        assert server.models[CLIENT_ID] == [MODEL]
        status = joined.client.status()
        assert (status.phase, status.models, status.detail) == (Phase.ONLINE, (MODEL,), "")
        assert status.client_id == "0011…eeff"
        await until(lambda: joined.client.status().last_heartbeat_at)
    await server.until(lambda: not server.online)


async def test_heartbeats_never_hold_up_the_connection_of_tasks(server: ControlServer) -> None:
    server.broker.clear()
    async with machine(server):
        peer = await server.joined()
        answer = server.answers[server.complete(peer, "hello", max_tokens=5)]
        await answer.end()
        assert answer.text() == text_of("hello")
        assert server.heartbeats == []
    server.broker.set()


async def test_nothing_connects_before_a_model_is_loaded(server: ControlServer) -> None:
    async with machine(server) as joined:
        await server.joined()
        await joined.client.stop()
        joined.service.fleet.change(FAILED)
        n_connections = server.n_connections
        joined.client.start()
        await asyncio.sleep(0)
        assert joined.client.status().phase is Phase.OFF
        assert server.n_connections == n_connections
        joined.service.fleet.change(OK)
        await server.joined()


async def test_a_change_of_the_models_is_told_at_once(server: ControlServer) -> None:
    async with machine(server) as joined:
        await server.joined()
        joined.service.fleet.change(FAILED)
        await server.until(lambda: server.models[CLIENT_ID] == [])
        joined.service.fleet.change(OK)
        await server.until(lambda: server.models[CLIENT_ID] == [MODEL])
        joined.service.dispatcher.drain()
        await server.until(lambda: server.models[CLIENT_ID] == [])
        assert len(server.logins) == 1


async def test_a_machine_that_the_server_does_not_know_says_so(server: ControlServer) -> None:
    server.valid.clear()
    async with machine(server) as joined:
        await until(lambda: joined.client.status().phase is Phase.WAITING)
        assert joined.client.status().detail == "login refused: Invalid client ID"
        assert not server.active


async def test_a_second_machine_with_the_same_id_waits_and_gets_in_later(
    server: ControlServer,
) -> None:
    async with machine(server) as first:
        await server.joined()
        async with machine(server) as second:
            await until(lambda: "already registered" in second.client.status().detail)
            # the server has forgotten the first one by now: that is its trap
            await until(lambda: second.client.status().phase is Phase.ONLINE)
        assert first.client.status().phase is Phase.ONLINE


async def test_no_login_meets_an_old_session_of_the_same_machine(server: ControlServer) -> None:
    async with machine(server):
        for n_logins in range(1, 11):
            await server.joined()
            assert len(server.logins) == n_logins
            server.cut()
            await server.until(lambda: CLIENT_ID not in server.active)


async def test_a_server_that_restarts_gets_its_machine_back(server: ControlServer) -> None:
    async with machine(server) as joined:
        await server.joined()
        await server.stop()
        await until(lambda: joined.client.status().phase is Phase.WAITING)
        await server.listen()
        await server.joined()


@pytest.mark.parametrize("fault", ["login", "status"])
async def test_a_server_that_hangs_is_left_and_tried_again(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(session, "LOGIN_S", 0.05)
    monkeypatch.setattr(session, "ANSWER_S", 0.05)
    server.accepts_login = fault != "login"
    server.answers_status = fault != "status"
    async with machine(server):
        await server.until(lambda: len(server.logins) > 1)
        server.accepts_login = server.answers_status = True
        await server.joined()


async def test_an_address_without_a_server_is_tried_again(server: ControlServer) -> None:
    await server.stop()
    async with machine(server) as joined:
        await until(lambda: joined.client.status().detail)
        await server.listen()
        await server.joined()


async def test_bytes_that_are_no_message_end_the_session(server: ControlServer) -> None:
    async with machine(server):
        peer = await server.joined()
        peer.writer.write(b"\0\0\0\4\xff\xff\xff\xff")
        await server.until(lambda: CLIENT_ID not in server.active)
        await server.joined()


async def test_a_frame_that_is_too_long_ends_the_session(server: ControlServer) -> None:
    async with machine(server):
        peer = await server.joined()
        peer.writer.write((10 * 1024 * 1024 + 1).to_bytes(4))
        await server.until(lambda: CLIENT_ID not in server.active)
        await server.joined()


async def test_a_defect_of_ours_costs_a_session_and_not_the_client(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with machine(server) as joined:
        peer = await server.joined()
        with monkeypatch.context() as patched:
            patched.setattr(joined.client, "_ignore", None)
            peer.send(P2PCancelInference(bytes(16), "t"))
            await server.until(lambda: CLIENT_ID not in server.active)
        await server.joined()
    assert "network_session_failed" in caplog.text


async def test_peer_to_peer_messages_are_ignored_and_logged_once(
    server: ControlServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with machine(server):
        peer = await server.joined()
        config = P2PConnectionConfig(
            bytes(16), bytes(16), ["stun"], [], "user", "word", bytes(32), 0, False
        )
        for message in (config, config, P2PCancelInference(bytes(16), "t"), config):
            peer.send_split(message)
        await server.answers[server.complete(peer, "hello", max_tokens=1)].end()
    ignored = [r.getMessage() for r in caplog.records if "network_message_ignored" in r.msg]
    assert ignored == [
        "network_message_ignored kind=P2PConnectionConfig",
        "network_message_ignored kind=P2PCancelInference",
    ]


async def test_the_client_id_stands_in_no_log_and_no_display(
    server: ControlServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with machine(server) as joined:
        await server.joined()
        server.cut()
        await server.until(lambda: CLIENT_ID not in server.active)
        shown = repr(joined.client.status())
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert "network_joined" in logged
    for text in (logged, shown):
        assert CLIENT_ID.hex() not in text
        assert repr(CLIENT_ID) not in text


async def test_a_machine_that_stops_leaves_nothing_behind(server: ControlServer) -> None:
    before = asyncio.all_tasks()
    async with machine(server) as joined:
        peer = await server.joined()
        joined.worker.auto = False
        answer = server.answers[server.complete(peer, "hello")]
        await until(lambda: joined.worker.active)
        await joined.client.stop()
        assert (await answer.end()).error == "This machine is leaving the network"
        assert joined.client.status().phase is Phase.OFF
        await until(lambda: joined.service.dispatcher.idle)
        await server.until(lambda: not server.active)
    await until(lambda: not asyncio.all_tasks() - before)


async def test_a_server_that_reads_nothing_does_not_hold_up_the_leaving(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.fabric.client.GRACE_S", 0.05)
    async with machine(server, network_tasks=1) as joined:
        peer = await server.joined()
        link = joined.client._link
        assert link is not None
        joined.worker.auto = False
        server.complete(peer, "hello")
        await until(lambda: joined.worker.active)
        async with link._lock:  # as while a chunk waits for the server
            await joined.client.stop()
        assert joined.client.status().phase is Phase.OFF
        assert joined.client.status().tasks.lost == 1


async def test_a_lost_session_ends_its_tasks_and_leaves_local_ones_alone(
    server: ControlServer,
) -> None:
    with nothing_leaks():
        await _cut_again_and_again(server)
        await server.until(lambda: not server.peers)


async def _cut_again_and_again(server: ControlServer) -> None:
    async with machine(server) as joined:
        joined.worker.auto = False
        local = asyncio.create_task(joined.service.complete(prompt="local", max_tokens=5))
        for _ in range(50):
            peer = await server.joined()
            server.complete(peer, "remote")
            await until(lambda: len(joined.worker.active) == 2)
            server.cut()
            await until(lambda: len(joined.worker.active) == 1)
            await server.until(lambda: CLIENT_ID not in server.active)
        joined.worker.auto = True
        joined.worker.go()
        assert (await local).json["choices"][0]["text"] == text_of("local")
        assert joined.client.status().tasks.lost == 50
        await server.until(lambda: len(server.peers) <= 2)
        assert (joined.service.runner.n_connections, server.unknown_chunks) == (1, [])


async def test_a_request_for_a_connection_before_the_login_is_ignored() -> None:
    async with control_server() as server:
        server.accepts_login = False
        async with machine(server) as joined:
            await server.until(lambda: server.logins)
            (peer,) = server.peers
            peer.send(RequestNewProxyConn(bytes(16)))
            await until(lambda: joined.client._ignored)
            assert joined.client.status().connections == 0


async def test_tasks_outlive_a_session_that_is_handed_over(server: ControlServer) -> None:
    async with machine(server, slots=1) as old:
        old.worker.auto = False
        peer = await server.joined()
        running, waiting = (server.complete(peer, name, max_tokens=5) for name in ("one", "two"))
        await until(lambda: old.worker.active and old.client.status().tasks_waiting)
        old.worker.step()
        await server.until(lambda: server.answers[running].chunks)
        await old.client.hand_over()
        assert old.client.status().phase is Phase.OFF
        await server.until(lambda: not server.active)
        old.worker.auto = True
        old.worker.go()
        async with machine(server):
            await server.joined()
            for task_id in (running, waiting):
                answer = server.answers[task_id]
                await answer.end()
                assert [chunk.seq for chunk in answer.chunks] == [*range(len(answer.chunks))]
                assert (answer.chunks[-1].done, answer.chunks[-1].error) == (True, None)
            await until(lambda: old.client.n_kept == 0)
            assert [login.client_id for login in server.logins] == [CLIENT_ID] * 2
            assert CLIENT_ID in server.active
