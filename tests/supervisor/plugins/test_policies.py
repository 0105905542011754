"""Routing and batching policies: what they choose holds, and what they do wrong costs nothing."""

import asyncio
from pathlib import Path

import pytest
from msgspec import structs

from gpufc.config import PluginConfig
from gpufc.protocol import AS_IT_CAME, Batching
from supervisor.plugins import batching_template, policies, routing_template
from supervisor.plugins.policies import Decisions
from supervisor.plugins.trust import FIRST_REST_S, MOST_FAILURES, Trust
from tests.supervisor.dispatch import fakes
from tests.supervisor.dispatch.fakes import text_of, until
from tests.supervisor.plugins.conftest import Plugged, plugged, sample

FAULTS = ["raise", "refuse", "nonsense", "number"]
"""Of a policy that answers at once, but nothing usable."""


def figures(front: Plugged) -> Decisions:
    (row,) = front.plugins.summary()
    assert row.policy is not None
    return row.policy


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other tests lets a good policy answer late."""
    monkeypatch.setattr(policies, "DECISION_S", 20.0)


@pytest.mark.usefixtures("threads", "patience")
async def test_a_sequence_runs_on_the_first_worker_with_room_that_the_policy_names(
    tmp_path: Path,
) -> None:
    wanted = sample("policy", workers=("default-2", "default-1"))
    async with plugged(tmp_path, wanted, slots=1) as front:
        fleet = front.service.fleet
        fleet.replicas = 3
        one, two = (fleet.start_worker(line=n, name=f"default-{n}", auto=False) for n in (1, 2))
        front.worker.auto = False
        asked = []
        for n, worker in enumerate((two, one, front.worker)):
            asked.append(asyncio.create_task(front.said(f"prompt {n}")))
            await until(lambda worker=worker: worker.active)
        for worker in (two, one, front.worker):
            worker.auto = True
            worker.go()
        assert await asyncio.gather(*asked) == [text_of(f"prompt {n}") for n in range(3)]
        assert figures(front) == Decisions(asked=6, followed=6)


@pytest.mark.usefixtures("threads", "patience")
async def test_a_policy_puts_sequences_forward_and_the_worker_hears_of_it(tmp_path: Path) -> None:
    async with plugged(tmp_path, sample("policy", later={"3": -5}), slots=1) as front:
        front.worker.auto = False
        asked = [asyncio.create_task(front.said(text)) for text in ("longer", "longest")]
        await until(lambda: front.worker.active and figures(front).followed == 2)
        asked.append(asyncio.create_task(front.said("now")))
        await until(lambda: figures(front).followed == 3)
        front.worker.auto = True
        front.worker.go()
        await asyncio.gather(*asked)
        sent = fakes.generates(front.worker.sent)
        assert [bytes(one.prompt_tokens) for one in sent] == [b"longer", b"now", b"longest"]
        assert [one.batching for one in sent] == [Batching(later, 64) for later in (0, -5, 0)]


@pytest.mark.usefixtures("threads", "patience")
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_policy_without_a_usable_answer_fails_no_request_and_is_switched_off(
    tmp_path: Path, fault: str
) -> None:
    async with plugged(tmp_path, sample("policy", fault=fault)) as front:
        for n in range(MOST_FAILURES):
            assert await front.said(f"prompt {n}") == text_of(f"prompt {n}")
        found = figures(front)
        assert found.is_off
        assert (found.failed, found.followed, found.late) == (found.asked, 0, 0)
        before = found.asked
        assert await front.said("hello") == text_of("hello")
        assert (found.asked, found.skipped >= 2) == (before, True)
        assert {one.batching for one in fakes.generates(front.worker.sent)} == {AS_IT_CAME}
        shown = (await front.service.get("/stats")).json["plugins"]
        assert shown[0]["policy"]["is_off"] is True


@pytest.mark.usefixtures("threads", "patience")
async def test_a_client_that_leaves_before_the_policy_has_answered_ends_its_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with plugged(tmp_path, sample("policy")) as front:
        held: list[asyncio.Event] = []

        async def held_up(self: policies.Policy, hook: str, *_: object, **__: object) -> None:
            held.append(asyncio.Event())
            await held[-1].wait()

        monkeypatch.setattr(policies.Policy, "ask", held_up)
        asked = asyncio.create_task(front.service.complete())
        await until(lambda: len(held) == 2)
        asked.cancel()
        await until(lambda: front.service.dispatcher.idle)
        for event in held:
            event.set()
        monkeypatch.undo()
        assert await front.said("hello") == text_of("hello")
        assert len(fakes.generates(front.worker.sent)) == 1


@pytest.mark.parametrize(
    ("fault", "timeout_s"),
    [
        ("hang", 0.3),
        ("die", 20.0),
        ("flood", 20.0),
        pytest.param("spin", 0.3, marks=pytest.mark.slow),
    ],
)
async def test_requests_do_not_notice_a_policy_whose_process_does_not_answer(
    tmp_path: Path, fault: str, timeout_s: float
) -> None:
    """A process of its own, with the time limit that holds outside of tests."""
    config = structs.replace(sample("policy", fault=fault), timeout_s=timeout_s)
    async with plugged(tmp_path, config) as front:
        texts = [f"prompt {n}" for n in range(8)]
        assert await asyncio.gather(*map(front.said, texts)) == list(map(text_of, texts))
        await until(lambda: figures(front).failed >= 1)
        (plugin,) = front.plugins.chain.plugins
        if fault in {"hang", "spin"}:
            assert figures(front).late
        await until(lambda: plugin.counts.restarts)
        assert await front.said("hello") == text_of("hello")
        assert (await front.service.get("/readyz")).status == 200


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("template", [routing_template, batching_template])
async def test_the_templates_work_as_they_are(tmp_path: Path, template: object) -> None:
    file = str(vars(template)["__file__"])
    async with plugged(tmp_path, PluginConfig(use=file, timeout_s=20.0)) as front:
        assert await front.said("hello") == text_of("hello")
        assert figures(front) == Decisions(asked=1, followed=1)


def test_a_policy_rests_after_failures_in_a_row_and_longer_each_time() -> None:
    trust = Trust()
    assert [trust.failed(0.0) for _ in range(MOST_FAILURES - 1)] == [0.0] * (MOST_FAILURES - 1)
    trust.held()
    assert [trust.failed(0.0) for _ in range(MOST_FAILURES)][-1] == FIRST_REST_S
    assert trust.failed(FIRST_REST_S - 1) == 0.0  # it was under way
    assert trust.is_off(FIRST_REST_S - 1)
    assert not trust.is_off(FIRST_REST_S)
    assert trust.failed(FIRST_REST_S) == 2 * FIRST_REST_S
    trust.held()
    assert trust.failed(10 * FIRST_REST_S) == 0.0
