"""Tasks of the network: they share the engine with local requests, and each has one end."""

import asyncio
import math
from typing import Any

import pytest
from msgspec import structs

from gpufc.config import NetworkShare
from gpufc.protocol import Generate
from supervisor.fabric.messages import (
    CancelInference,
    ChatInferenceTask,
    ChatMessage,
    InferenceTask,
    OutputPhase,
)
from supervisor.fabric.tasks import UNSENT
from tests.fakes.control_server import Answer, ControlServer
from tests.supervisor.dispatch import fakes
from tests.supervisor.dispatch.fakes import MODEL, text_of, until
from tests.supervisor.fabric.conftest import Machine, machine

pytestmark = pytest.mark.usefixtures("quick")

FIVE = {"max_tokens": 5}


def require_whole(answer: Answer) -> None:
    """Numbers without a gap, counters that never fall, one `done` at the end."""
    chunks = answer.chunks
    assert [chunk.seq for chunk in chunks] == [*range(len(chunks))]
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    counts = [chunk.completion_tokens for chunk in chunks]
    assert counts == sorted(counts)


async def ended(server: ControlServer, task_id: str) -> Answer:
    answer = server.answers[task_id]
    await answer.end()
    require_whole(answer)
    return answer


def generates(joined: Machine) -> list[Generate]:
    return fakes.generates(joined.worker.sent)


async def test_a_completion_comes_with_the_servers_sampling_and_its_counters(
    server: ControlServer,
) -> None:
    async with machine(server) as joined:
        peer = await server.joined()
        answer = await ended(server, server.complete(peer, "hello", temperature=0.5, **FIVE))
        assert answer.text() == text_of("hello")
        last = answer.chunks[-1]
        assert (last.error, last.delta, last.phase) == (None, "", OutputPhase.FINAL)
        assert (last.prompt_tokens, last.completion_tokens, last.final_tokens) == (5, 5, 5)
        (sent,) = generates(joined)
        sampling = sent.sampling
        assert (sampling.temperature, sampling.top_k, sampling.repeat_last_n) == (0.5, 40, 64)
        assert (sampling.top_p, sampling.repeat_penalty) == (
            pytest.approx(0.9),
            pytest.approx(1.1),
        )
        assert joined.client.status().tasks.succeeded == 1


async def test_a_network_task_shares_no_cached_prefix_with_local_requests(
    server: ControlServer,
) -> None:
    async with machine(server) as joined:
        peer = await server.joined()
        await ended(server, server.complete(peer, "hello", **FIVE))
        await joined.service.complete(prompt="hello", max_tokens=5)
        remote, local = generates(joined)
        assert remote.scope != local.scope


async def test_a_chat_streams_its_reasoning_and_its_answer_in_phases(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ["<think>", "let me", " see", "</think>", "Hel", "lo"]
    monkeypatch.setattr(fakes, "piece", lambda _spec, position: text[position])
    async with machine(server) as joined:
        facts = joined.worker.facts
        template = "{% if thinking %}<think></think>{% endif %}"
        joined.worker.facts = structs.replace(facts, chat_template=template)
        joined.worker.n_tokens = len(text)
        joined.service.dispatcher.worker_ready(joined.worker)
        peer = await server.joined()
        answer = await ended(server, server.chat(peer, "hi", MODEL))
        assert answer.text(OutputPhase.ANALYSIS) == "let me see"
        assert answer.text(OutputPhase.FINAL) == "Hello"
        last = answer.chunks[-1]
        assert last.analysis_tokens + last.final_tokens == last.completion_tokens == len(text)
        assert last.analysis_tokens > 0
        assert last.final_tokens > 0


async def test_text_is_gathered_and_not_sent_token_for_token(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.fabric.tasks.COALESCE_S", 0.2)
    async with machine(server) as joined:
        joined.worker.n_tokens = 200
        peer = await server.joined()
        answer = await ended(server, server.complete(peer, "hello", max_tokens=200))
        assert answer.text() == text_of("hello", 200)
        assert len(answer.chunks) < 10


@pytest.mark.parametrize(
    ("kind", "model", "fields", "error"),
    [
        ("chat", "no-such-model", {}, "no-such-model"),
        ("chat", MODEL, {"top_p": 2.0}, "top_p"),
        ("chat", MODEL, {"temperature": math.nan}, "temperature"),
        ("complete", "", {"repeat_penalty": math.inf}, "repeat_penalty"),
        ("complete", "", {"repeat_last_n": -5}, "repeat_last_n"),
    ],
)
async def test_a_bad_task_gets_one_chunk_with_the_reason(
    server: ControlServer, kind: str, model: str, fields: dict[str, float], error: str
) -> None:
    async with machine(server) as joined:
        peer = await server.joined()
        task_id = (
            server.chat(peer, "hi", model, **fields)
            if kind == "chat"
            else server.complete(peer, "hi", **fields)
        )
        answer = await ended(server, task_id)
        (only,) = answer.chunks
        assert error in (only.error or "")
        assert joined.client.status().tasks.failed == 1
        assert len(server.logins) == 1  # the original's session dies of such tasks


async def test_a_prompt_that_is_too_long_and_a_chat_of_no_or_too_many_messages_are_refused(
    server: ControlServer,
) -> None:
    async with machine(server):
        peer = await server.joined()
        long = await ended(server, server.complete(peer, "x" * fakes.N_CTX))
        assert [chunk.error for chunk in long.chunks] == ["too long"]
        for n_messages in (0, 5000):
            task_id = str(n_messages)
            server.answers[task_id] = Answer()
            messages = [ChatMessage("user", "x")] * n_messages
            peer.send(ChatInferenceTask(task_id, MODEL, messages, 5, 0.7, 40, 0.9, 1.1, 64, 1))
            assert (await ended(server, task_id)).chunks[0].error


async def test_two_tasks_and_a_local_request_run_at_once(server: ControlServer) -> None:
    async with machine(server) as joined:
        joined.worker.auto = False
        peer = await server.joined()
        tasks = {p: server.complete(peer, p, **FIVE) for p in ("one", "another")}
        local = asyncio.create_task(joined.service.complete(prompt="local", max_tokens=5))
        await until(lambda: len(joined.worker.active) == 3)
        joined.worker.auto = True
        joined.worker.go()
        for prompt, task_id in tasks.items():
            assert (await ended(server, task_id)).text() == text_of(prompt)
        assert (await local).json["choices"][0]["text"] == text_of("local")


async def test_a_cancel_stops_the_engine_at_once_and_ends_the_task(server: ControlServer) -> None:
    async with machine(server) as joined:
        joined.worker.auto = False
        peer = await server.joined()
        task_id = server.complete(peer, "hello")
        await until(lambda: joined.worker.active)
        answer = server.answers[task_id]
        peer.send(CancelInference(task_id))
        await until(lambda: not joined.worker.active)
        last = (await ended(server, task_id)).chunks[-1]
        assert (last.error, last.delta) == (None, "")
        assert answer.chunks[-1] is last
        assert joined.client.status().tasks.cancelled == 1


async def test_a_cancel_right_behind_its_task_is_not_missed(server: ControlServer) -> None:
    async with machine(server) as joined:
        joined.worker.auto = False
        peer = await server.joined()
        task_id = server.complete(peer, "hello")
        peer.send(CancelInference(task_id))
        await ended(server, task_id)
        await until(lambda: joined.service.dispatcher.idle)
        assert joined.client.status().tasks.cancelled == 1


async def test_a_cancelled_task_that_the_server_has_forgotten_still_gets_its_end(
    server: ControlServer,
) -> None:
    async with machine(server) as joined:
        joined.worker.auto = False
        peer = await server.joined()
        task_id = server.complete(peer, "hello")
        await until(lambda: joined.worker.active)
        server.leave(peer, task_id)
        await server.until(lambda: server.unknown_chunks)
        assert [chunk.done for chunk in server.unknown_chunks] == [True]


async def test_a_cancel_of_an_unknown_or_finished_task_changes_nothing(
    server: ControlServer,
) -> None:
    async with machine(server) as joined:
        peer = await server.joined()
        first = await ended(server, server.complete(peer, "hello", **FIVE))
        peer.send(CancelInference(first.chunks[0].task_id))
        peer.send(CancelInference("no such task"))
        second = await ended(server, server.complete(peer, "hello", **FIVE))
        assert second.text() == first.text() == text_of("hello")
        require_whole(first)
        assert joined.client.status().tasks.cancelled == 0


async def test_tasks_beyond_the_limit_wait_and_those_beyond_the_queue_are_refused(
    server: ControlServer,
) -> None:
    async with machine(server, network_tasks=2, network_queue=3) as joined:
        joined.worker.auto = False
        peer = await server.joined()
        tasks = [server.complete(peer, f"task {n}", **FIVE) for n in range(7)]
        refused = [await ended(server, task_id) for task_id in tasks[5:]]
        assert [one.chunks[0].error for one in refused] == ["Too many tasks are waiting"] * 2
        status = joined.client.status()
        assert (status.tasks_running, status.tasks_waiting, status.tasks.refused) == (2, 3, 2)
        peer.send(CancelInference(tasks[4]))  # it waits
        await ended(server, tasks[4])
        joined.worker.auto = True
        joined.worker.go()
        for n, task_id in enumerate(tasks[:4]):
            assert (await ended(server, task_id)).text() == text_of(f"task {n}")
        assert joined.worker.most_active == 2


async def test_a_flood_of_tasks_is_answered_task_for_task(server: ControlServer) -> None:
    async with machine(server, network_tasks=2, network_queue=8) as joined:
        peer = await server.joined()
        local = asyncio.create_task(joined.service.complete(prompt="local", max_tokens=5))
        tasks = [server.complete(peer, f"task {n}", **FIVE) for n in range(1000)]
        answers = [await ended(server, task_id) for task_id in tasks]
        served = [n for n, one in enumerate(answers) if one.chunks[-1].error is None]
        assert served
        assert all(answers[n].text() == text_of(f"task {n}") for n in served)
        assert (await local).json["choices"][0]["text"] == text_of("local")
        counts = joined.client.status().tasks
        assert counts.succeeded == len(served)
        assert counts.succeeded + counts.refused == 1000
        assert len(server.logins) == 1


async def test_a_task_with_an_id_in_use_is_ignored(server: ControlServer) -> None:
    async with machine(server) as joined:
        joined.worker.auto = False
        peer = await server.joined()
        task_id = server.complete(peer, "hello", **FIVE)
        peer.send(InferenceTask(task_id, "other", 5, 0.7, 40, 0.9, 1.1, 64, 1))
        await until(lambda: joined.worker.active)
        joined.worker.auto = True
        joined.worker.go()
        assert (await ended(server, task_id)).text() == text_of("hello")
        assert joined.client.status().tasks.succeeded == 1


async def test_a_worker_that_dies_costs_a_task_no_token(server: ControlServer) -> None:
    async with machine(server) as joined:
        joined.worker.auto = False
        peer = await server.joined()
        tasks = {p: server.complete(peer, p, **FIVE) for p in ("one", "another")}
        await until(lambda: len(joined.worker.active) == 2)
        for _ in range(2):
            joined.worker.step()
        joined.worker.die()
        joined.service.fleet.start_worker()
        for prompt, task_id in tasks.items():
            answer = await ended(server, task_id)
            assert answer.text() == text_of(prompt)
            assert answer.chunks[-1].completion_tokens == 5


async def test_a_defect_of_ours_ends_the_task_with_an_error(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("supervisor.fabric.tasks.request_of", broken)
    async with machine(server):
        peer = await server.joined()
        answer = await ended(server, server.complete(peer, "hello"))
        assert answer.chunks[-1].error == "Something went wrong on our side"
    assert "network_task_failed" in caplog.text


async def test_an_answer_that_cannot_be_sent_still_has_its_end(
    server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes, "piece", lambda _spec, _position: "\ud800")
    async with machine(server) as joined:
        peer = await server.joined()
        answer = server.answers[server.complete(peer, "hello", **FIVE)]
        await answer.end()
        assert [(chunk.done, chunk.error) for chunk in answer.chunks] == [(True, UNSENT)]
        assert joined.client.status().tasks.failed == 1
        assert len(server.logins) == 1


async def test_messages_may_come_in_any_pieces(server: ControlServer) -> None:
    async with machine(server):
        peer = await server.joined()
        for n in range(3):
            server.answers[str(n)] = Answer()
            peer.send_split(InferenceTask(str(n), f"task {n}", 5, 0.7, 40, 0.9, 1.1, 64, 1))
            assert (await ended(server, str(n))).text() == text_of(f"task {n}")


async def test_a_front_that_drains_refuses_tasks_with_a_reason(server: ControlServer) -> None:
    async with machine(server) as joined:
        peer = await server.joined()
        joined.service.dispatcher.drain()
        answer = await ended(server, server.complete(peer, "hello"))
        assert [chunk.error for chunk in answer.chunks] == ["The server is stopping"]


async def test_local_requests_take_the_slots_of_tasks_where_they_go_first(
    server: ControlServer,
) -> None:
    async with machine(server, slots=1, network_share=NetworkShare.LOCAL) as joined:
        joined.worker.auto = False
        peer = await server.joined()
        task_id = server.complete(peer, "task", **FIVE)
        await until(lambda: joined.worker.active)
        joined.worker.step()
        await server.until(lambda: server.answers[task_id].chunks)
        local = asyncio.create_task(joined.service.complete(prompt="local", max_tokens=5))
        await until(lambda: generates(joined)[1:])
        assert [len(one.prompt_tokens) for one in generates(joined)] == [4, 5]
        joined.worker.auto = True
        joined.worker.go()
        assert (await local).json["choices"][0]["text"] == text_of("local")
        assert (await ended(server, task_id)).text() == text_of("task")
