"""The page has a word and a tone for every state that the front may show."""

import re
from enum import StrEnum

import pytest

from supervisor.fleet.model_state import ModelPhase
from supervisor.fleet.port import ConditionStatus
from supervisor.fleet.states import WorkerState
from supervisor.http.dashboard.assets import FOLDER

STATES = (FOLDER / "js" / "states.js").read_text()


def keys_of(table: str) -> set[str]:
    found = re.search(rf"export const {table} = {{\n(.*?)\n}};", STATES, re.DOTALL)
    assert found is not None
    return set(re.findall(r"^  (\w+):", found[1], re.MULTILINE))


@pytest.mark.parametrize("states", [WorkerState, ModelPhase])
@pytest.mark.parametrize("table", ["TONE", "WORD"])
def test_each_state_of_a_worker_and_of_a_model_is_shown(states: type[StrEnum], table: str) -> None:
    assert {state.value for state in states} <= keys_of(table)


def test_each_condition_of_the_service_is_shown() -> None:
    assert keys_of("SERVICE") == {status.value for status in ConditionStatus}
