"""The guided scenarios' schemas and metrics."""

import json
from typing import Any

import pytest

from engine_worker.constraints.grammar import grammar_of
from gpufc.constraint import Constraint, ConstraintKind
from supervisor.bench.client import Api, Target, body
from supervisor.bench.outcome import Failure, Outcome
from supervisor.bench.workload import Workload, conversation
from tests.bench.guided import FREE, SCHEMAS, SHOWS, metrics


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
    outcomes = {kind: [outcome(0, 1, 10)] for kind in SCHEMAS} | {
        FREE: [outcome(0.0, 2.0, 10), outcome(1.0, 2.0, 10), outcome(9.0, 11.0, 20)]
    }
    outcomes["enum"].append(outcome(1, 2, 7, failure=Failure.CUT))
    found = metrics(outcomes)
    assert found["free_per_s"] == 10.0
    assert (found["object_per_s"], found["object_of_free_share"]) == (10.0, 1.0)
    assert (found["enum_per_s"], found["failed"]) == (5.0, 1.0)
    assert set(SHOWS) <= set(found)
