"""The fields that switch a model's reasoning: one thing under several names."""

from typing import Any

import msgspec
import pytest

from gpufc.errors import InvalidRequest
from supervisor.http.generation.thinking import ThinkingFields, switched, thinking_variables


def read(**fields: Any) -> dict[str, Any]:
    return thinking_variables(msgspec.convert(fields, ThinkingFields))


@pytest.mark.parametrize(
    "fields",
    [
        {"enable_thinking": False},
        {"thinking": {"type": "disabled"}},
        {"thinking": False},
        {"reasoning": {"enabled": False}},
        {"enable_thinking": False, "thinking": {"type": "enabled"}},
    ],
)
def test_reasoning_is_switched_off_under_every_name(fields: dict[str, Any]) -> None:
    assert read(**fields) == switched(False)


@pytest.mark.parametrize(
    "fields",
    [
        {"enable_thinking": True},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"thinking": {"type": "auto"}},
        {"reasoning": {"enabled": True, "exclude": False, "max_tokens": None}},
    ],
)
def test_reasoning_is_switched_on_under_every_name(fields: dict[str, Any]) -> None:
    assert read(**fields) == switched(True)


def test_an_effort_has_two_names_and_none_is_a_switch() -> None:
    assert read(reasoning_effort="low") == {"reasoning_effort": "low"}
    assert read(reasoning={"effort": "low"}) == {"reasoning_effort": "low"}
    assert read(reasoning_effort="high", reasoning={"effort": "low"})["reasoning_effort"] == "high"
    assert read(reasoning_effort="none") == switched(False) | {"reasoning_effort": "none"}


def test_without_a_field_the_template_decides() -> None:
    assert read(thinking={}, reasoning={}, enable_thinking=None) == {}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"thinking": {"type": "sometimes"}}, "thinking.type"),
        ({"reasoning": {"max_tokens": 2000}}, "reasoning.max_tokens"),
    ],
)
def test_a_choice_that_is_not_served_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read(**fields)
    assert refusal.value.param == param
