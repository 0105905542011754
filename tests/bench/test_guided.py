"""The guided scenarios' schemas and metrics."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from engine_worker.constraints.grammar import grammar_of
from gpufc.constraint import Constraint, ConstraintKind
from supervisor.bench import runner
from supervisor.bench.client import Api, Target, body
from supervisor.bench.outcome import Failure, Outcome
from supervisor.bench.runner import Bounds, Run
from supervisor.bench.workload import Workload, conversation
from tests.bench.guided import FREE, SCHEMAS, SHOWS, alike, guide, lengths, metrics


def outcome(began_at: float, ended_at: float, tokens: int, **more: Any) -> Outcome:
    return Outcome(
        conversation=0, turn=0, asked_tokens=64, began_at=began_at, ended_at=ended_at,
        output_tokens=tokens, **more,
    )  # fmt: skip


@pytest.mark.parametrize("kind", SCHEMAS)
def test_each_schema_can_be_enforced(kind: str) -> None:
    text = json.dumps(SCHEMAS[kind])
    assert grammar_of(Constraint(ConstraintKind.JSON_SCHEMA, text, "json_schema"))


def test_a_workload_adds_its_fields_to_each_request() -> None:
    workload = Workload(fields={"json_schema": {"type": "null"}, "ignore_eos": False})
    target = Target(url="http://x", api=Api.CHAT)
    sent = body(target, workload, conversation(workload, 0), [])
    assert b'"json_schema":{"type":"null"}' in sent
    assert b'"ignore_eos":false' in sent


def test_rates_count_the_time_in_which_requests_ran() -> None:
    outcomes = every_kind(lambda _: [outcome(0, 1, 10)]) | {
        FREE: [outcome(0.0, 2.0, 10), outcome(1.0, 2.0, 10), outcome(9.0, 11.0, 20)]
    }
    outcomes["enum"].append(outcome(1, 2, 7, failure=Failure.CUT))
    found = metrics(outcomes)
    assert found["free_per_s"] == 10.0
    assert (found["object_per_s"], found["object_of_free_share"]) == (10.0, 1.0)
    assert (found["enum_per_s"], found["failed"]) == (5.0, 1.0)
    assert set(SHOWS) <= set(found)


def test_a_kind_is_compared_with_free_answers_of_the_same_lengths() -> None:
    outcomes = every_kind(lambda _: [outcome(0, 1, 60)])
    outcomes["recursive"] = [outcome(0, 1, 10), outcome(0, 4, 50)]
    outcomes[alike("recursive")] = [outcome(10, 11, 10), outcome(10, 13, 50)]
    found = metrics(outcomes)
    assert found["recursive_of_same_lengths_share"] == 0.75
    assert found["recursive_of_free_share"] == 0.25


def every_kind(some: Callable[[str], list[Outcome]]) -> dict[str, list[Outcome]]:
    return {kind: some(kind) for kind in (FREE, *SCHEMAS, *map(alike, SCHEMAS))}


def test_lengths_are_by_conversation_whenever_answers_ended() -> None:
    found = lengths([answer(2, 30), answer(0, 10), answer(1, 0)])
    assert found == (10, 1, 30)
    workload = Workload(output_tokens=64, lengths=found)
    assert [conversation(workload, index).output_tokens for index in range(4)] == [10, 1, 30, 10]


def answer(number: int, tokens: int) -> Outcome:
    return structs.replace(outcome(0, 1, tokens), conversation=number)


async def test_each_kind_is_followed_by_free_answers_of_its_lengths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Workload] = []

    async def answered(_target: Target, workload: Workload, _bounds: Bounds) -> Run:
        asked.append(workload)
        is_guided = "json_schema" in workload.fields
        tokens = [len(asked), 5] if is_guided else workload.lengths or [64, 64]
        outcomes = [answer(number, n_tokens) for number, n_tokens in enumerate(tokens)]
        return Run(outcomes=outcomes, client_cpu_s=0.0)

    monkeypatch.setattr(runner, "run", answered)
    found, _ = await guide(Target(url="http://x"), Workload(), Bounds(requests=2), 512)
    assert [one.fields.get("json_schema") for one in asked[1:-1:2]] == list(SCHEMAS.values())
    assert [one.lengths for one in asked[2::2]] == [(2, 5), (4, 5), (6, 5), (8, 5)]
    assert len({one.seed for one in asked}) == len(asked)
    assert {found[f"{kind}_of_same_lengths_share"] for kind in SCHEMAS} == {1.0}
