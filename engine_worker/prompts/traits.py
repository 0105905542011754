"""The forms of a conversation that one template can render, found by trying.

Templates differ in the roles that they know, in the order of turns that they allow and in the form
of tool calls that they read. A template may refuse a form, or leave out a text without a word.
"""

import json
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import product
from typing import Any

from msgspec import Struct

from engine_worker.prompts.conversation import Conversation, Message

NEEDLE = "gpufc5f1e9"
"""A word that no template writes by itself."""

Render = Callable[[Conversation], str | None]
"""A template's text, or None for a refusal."""

_SYSTEM, _USER, _ANSWER, _RESULT = (f"{NEEDLE}{letter}" for letter in "suar")
_LATER, _SECOND = f"{NEEDLE}later", f"{NEEDLE}o"
_NAME, _KEY, _VALUE = _CALL = tuple(f"{NEEDLE}{letter}" for letter in "nkv")
_DEFINED = tuple(f"{NEEDLE}t{letter}" for letter in "nkv")
LONG_ID, SHORT_ID = "call_0123456789abcdef_0_0", "a1b2c3d4e"
_TOOL = {
    "type": "function",
    "function": {
        "name": _DEFINED[0],
        "description": _DEFINED[2],
        "parameters": {"type": "object", "properties": {_DEFINED[1]: {"type": "string"}}},
    },
}


class CallForm(Struct, frozen=True):
    """How a template wants tool calls.

    `is_null`: only a message with null content has calls. `is_text`: arguments are JSON text.
    `has_short_ids`: ids have nine letters and digits.
    """

    is_null: bool = False
    is_text: bool = False
    has_short_ids: bool = False


class BesideCalls(StrEnum):
    """Where a template renders the text of a message with calls, and loses neither."""

    KEPT = "kept"
    """In its message."""
    APART = "apart"
    """In a turn of its own, before the calls."""
    IN_RESULT = "in_result"
    """In neither: it becomes a part of the first result behind the calls."""


class Traits(Struct, frozen=True):
    """Which forms a template renders whole. `calls` is None if it renders no tool calls.

    `several_calls`: a message may have more than one. `user_after_results`: a user's turn may
    follow results of tools, as agents send it.
    """

    system: bool = True
    late_system: bool = True
    repeated_roles: bool = True
    assistant_first: bool = True
    tools: bool = False
    tool_results: bool = False
    calls: CallForm | None = None
    several_calls: bool = False
    text_beside_calls: BesideCalls = BesideCalls.KEPT
    user_after_results: bool = True


def probed(render: Render) -> Traits:
    """The traits of a template. Each probe is a short conversation of known words."""

    def has_all(messages: Sequence[Message], *words: str, tools: bool = False) -> bool:
        text = render(Conversation(list(messages), tools=[_TOOL] if tools else None))
        return text is not None and all(word in text for word in words)

    system, user, answer = _said("system"), _said("user"), _said("assistant")
    later = {"role": "user", "content": _LATER}
    late_system = {"role": "system", "content": _LATER}
    has_system = has_all([system, user], _SYSTEM, _USER)
    calls, behind = _call_form(render)
    result = _result(calls or CallForm())
    turn, several = calling(calls or CallForm()), calling(calls or CallForm(), _VALUE, _SECOND)
    has_results = calls is not None and has_all([user, turn, result], _RESULT, tools=True)
    following = [result, {**answer, "content": _LATER}, user] if has_results else behind

    def text_beside_calls() -> BesideCalls:
        beside = [user, {**turn, "content": _ANSWER}, *behind]
        if calls is None or has_all(beside, _ANSWER, _VALUE, tools=True):
            return BesideCalls.KEPT
        apart = [user, answer, turn, *following]
        is_apart = has_all(apart, _ANSWER, _VALUE, tools=True)
        return BesideCalls.APART if is_apart else BesideCalls.IN_RESULT

    return Traits(
        system=has_system,
        late_system=has_system
        and has_all([system, user, answer, late_system, user], _SYSTEM, _LATER)
        and has_all([system, user, late_system], _SYSTEM, _LATER),
        repeated_roles=has_all([user, later], _USER, _LATER)
        and has_all([user, answer, {**answer, "content": _LATER}, user], _ANSWER, _LATER),
        assistant_first=has_all([answer, user], _ANSWER, _USER),
        tools=has_all([user], *_DEFINED, tools=True)
        and (not has_system or has_all([system, user], _SYSTEM, *_DEFINED, tools=True)),
        tool_results=has_results,
        calls=calls,
        several_calls=calls is not None
        and has_all([user, several, *behind], _VALUE, _SECOND, tools=True),
        text_beside_calls=text_beside_calls(),
        user_after_results=not has_results
        or has_all([user, turn, result, later], _RESULT, _LATER, tools=True),
    )


def calling(form: CallForm, *values: str) -> Message:
    """The probe of tool calls, in a form: a call with each of these arguments."""
    calls = []
    for value in values or (_VALUE,):
        given = {_KEY: value}
        function = {"name": _NAME, "arguments": json.dumps(given) if form.is_text else given}
        calls.append({"id": _id(form), "type": "function", "function": function})
    return {
        "role": "assistant",
        "content": None if form.is_null else "",
        "tool_calls": calls,
    }


def _call_form(render: Render) -> tuple[CallForm | None, list[Message]]:
    """The first form that a template renders whole, and the turns behind it: some templates write
    the last message's calls in no prompt for an answer, so a result stands behind them there."""
    user = _said("user")
    for has_result in (False, True):
        for flags in product((False, True), repeat=3):
            form = CallForm(has_short_ids=flags[0], is_null=flags[1], is_text=flags[2])
            behind = [_result(form)] if has_result else []
            text = render(Conversation([user, calling(form), *behind], tools=[_TOOL]))
            if text is not None and _shows_call(text):
                return form, behind
    return None, []


def _result(form: CallForm) -> Message:
    return {"role": "tool", "content": _RESULT, "name": _NAME, "tool_call_id": _id(form)}


def _shows_call(text: str) -> bool:
    """Whether a text has the probe's call, with its arguments neither in Python's notation nor as
    JSON text inside a JSON string."""
    mangled = ("{'" + _KEY, '\\"' + _KEY)
    return all(word in text for word in _CALL) and not any(form in text for form in mangled)


def _id(form: CallForm) -> str:
    return SHORT_ID if form.has_short_ids else LONG_ID


def _said(role: str) -> Message:
    words: dict[str, Any] = {"system": _SYSTEM, "user": _USER, "assistant": _ANSWER}
    return {"role": role, "content": words[role]}
