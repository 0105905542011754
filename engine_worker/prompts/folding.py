"""A conversation changed to the forms that its template can render. Pure.

Nothing is left out: a turn of a role that the template refuses becomes a part of a user's turn,
tools that it does not know are described in the system message, and a text that it drops beside
calls stands in another turn. Only a template that takes such a text neither beside the calls nor in
a turn of its own drops it if no result follows the calls.
"""

import json
from typing import Any

from msgspec import structs

from engine_worker.prompts.conversation import Conversation, Message
from engine_worker.prompts.traits import BesideCalls, CallForm, Traits

TOOLS = """# Tools

You may call these functions:
<tools>
{tools}
</tools>

To call a function, write one JSON object with its name and its arguments, for each call:
<tool_call>
{{"name": "the function's name", "arguments": {{}}}}
</tool_call>"""
"""The description of tools for a template without them."""

_CALL = "<tool_call>\n{call}\n</tool_call>"
_RESULT = "<tool_response>\n{result}\n</tool_response>"
_ID_DIGITS = 9


def folded(given: Conversation, traits: Traits) -> Conversation:
    """The conversation as a template with these traits can render it."""
    tools = given.tools or None
    messages = given.messages
    if traits.calls is None:
        messages = [_with_calls_as_text(message) for message in messages]
    if not traits.repeated_roles:
        messages = _with_answers_joined(messages)  # before a text is put apart from its calls
    if traits.calls is not None:
        messages = _with_calls(messages, traits, traits.calls)
    if tools and not traits.tools:
        described = TOOLS.format(tools="\n".join(map(_json, tools)))
        messages, tools = [{"role": "system", "content": described}, *messages], None
    messages = _systems_first(messages)
    turns: list[Message] = []
    was_folded = False
    for message in messages:
        turn = _as_user(message, traits, is_first=not turns)
        if _is_refused_after_result(turn, turns, traits):
            turns[-1] = {**turns[-1], "content": _paragraphs(turns[-1]["content"], turn["content"])}
            continue
        is_folded = turn is not message
        follows = bool(turns) and turns[-1]["role"] == turn["role"] == "user"
        if follows and (is_folded or was_folded or not traits.repeated_roles):
            turns[-1] = _joined(turns[-1], turn)
        else:
            turns.append(turn)
        was_folded = is_folded
    if not traits.assistant_first:
        turns = _with_user_first(turns)
    return structs.replace(given, messages=turns, tools=tools)


def _with_answers_joined(messages: list[Message]) -> list[Message]:
    """Assistants' turns that follow one another as one."""
    changed: list[Message] = []
    for message in messages:
        if changed and changed[-1]["role"] == message["role"] == "assistant":
            changed[-1] = _joined(changed[-1], message)
        else:
            changed.append(message)
    return changed


def _with_calls_as_text(message: Message) -> Message:
    """The message with its tool calls in its text, for a template that knows none."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    texts = [_CALL.format(call=_json(call["function"])) for call in calls]
    plain = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**plain, "content": _lines(message["content"], *texts)}


def _with_calls(messages: list[Message], traits: Traits, form: CallForm) -> list[Message]:
    """The messages with their tool calls, and the texts beside them, as the template reads them."""
    if not traits.several_calls:
        messages = _with_one_call_each(messages)
    match traits.text_beside_calls:
        case BesideCalls.APART:
            messages = [turn for message in messages for turn in _with_text_apart(message)]
        case BesideCalls.IN_RESULT:
            messages = _with_texts_in_results(messages)
        case BesideCalls.KEPT:
            pass
    messages = [_with_calls_as(form, message) for message in messages]
    return _with_short_ids(messages) if form.has_short_ids else messages


def _with_calls_as(form: CallForm, message: Message) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    if form.is_text:
        calls = [
            {**call, "function": {**function, "arguments": _json(function["arguments"])}}
            for call in calls
            for function in [call["function"]]
        ]
    is_null = form.is_null and not message["content"]
    return {**message, "tool_calls": calls, "content": None if is_null else message["content"]}


def _with_text_apart(message: Message) -> list[Message]:
    """The text of a message with calls in a turn before them."""
    if not message.get("tool_calls") or not message["content"]:
        return [message]
    text = {key: value for key, value in message.items() if key != "tool_calls"}
    calls = {key: value for key, value in message.items() if key != "reasoning_content"}
    return [text, {**calls, "content": ""}]


def _with_texts_in_results(messages: list[Message]) -> list[Message]:
    """The text beside calls in the first result behind them. Without a result it stays, as the
    calls matter more than the text."""
    changed: list[Message] = []
    for message in messages:
        before = changed[-1] if changed else {}
        if message["role"] == "tool" and before.get("tool_calls") and before["content"]:
            changed[-1] = {**before, "content": ""}
            text = _paragraphs(before["content"], message["content"])
            changed.append({**message, "content": text})
        else:
            changed.append(message)
    return changed


def _is_refused_after_result(turn: Message, turns: list[Message], traits: Traits) -> bool:
    """Whether a user's turn follows a result of a tool where the template takes none. It becomes a
    part of the result: some agents send both in one turn."""
    follows = bool(turns) and (turns[-1]["role"], turn["role"]) == ("tool", "user")
    return follows and not traits.user_after_results


def _with_one_call_each(messages: list[Message]) -> list[Message]:
    """Each call in a turn of its own, with its result behind it."""
    changed: list[Message] = []
    rest = list(reversed(messages))
    while rest:
        message = rest.pop()
        calls = message.get("tool_calls", ())
        if len(calls) < 2:
            changed.append(message)
            continue
        results = []
        while rest and rest[-1]["role"] == "tool":
            results.append(rest.pop())
        for number, call in enumerate(calls):
            content = "" if number else message["content"]
            changed.append({**message, "content": content, "tool_calls": [call]})
            changed += [one for one in results if one.get("tool_call_id") == call["id"]]
        known = {call["id"] for call in calls}
        changed += [one for one in results if one.get("tool_call_id") not in known]
    return changed


def _with_short_ids(messages: list[Message]) -> list[Message]:
    """Ids of nine digits, numbered in the order of the calls: a longer history has the same."""
    short: dict[str, str] = {}

    def of(own: str) -> str:
        return short.setdefault(own, str(len(short)).zfill(_ID_DIGITS))

    changed = []
    for message in messages:
        if "tool_calls" in message:
            calls = [{**call, "id": of(call["id"])} for call in message["tool_calls"]]
            message = {**message, "tool_calls": calls}
        if "tool_call_id" in message:
            message = {**message, "tool_call_id": of(message["tool_call_id"])}
        changed.append(message)
    return changed


def _systems_first(messages: list[Message]) -> list[Message]:
    """The system messages at the beginning as one: many templates read the first one only."""
    n = next((at for at, one in enumerate(messages) if one["role"] != "system"), len(messages))
    if n < 2:
        return messages
    contents = [message["content"] for message in messages[:n]]
    return [{**messages[0], "content": _paragraphs(*contents)}, *messages[n:]]


def _as_user(message: Message, traits: Traits, *, is_first: bool) -> Message:
    """A turn of a role that the template does not render here becomes a user's."""
    content = message["content"]
    match message["role"]:
        case "system" if not (traits.system if is_first else traits.late_system):
            return {"role": "user", "content": content}
        case "tool" if not traits.tool_results:
            return {"role": "user", "content": _RESULT.format(result=content)}
        case _:
            return message


def _joined(first: Message, second: Message) -> Message:
    """Two turns of one role as one."""
    contents = [first["content"], second["content"]]
    joined: Message = {**first, **second, "content": _paragraphs(*contents)}
    calls = [*first.get("tool_calls", ()), *second.get("tool_calls", ())]
    if calls:
        joined["tool_calls"] = calls
    return joined


def _with_user_first(turns: list[Message]) -> list[Message]:
    n = 1 if turns and turns[0]["role"] == "system" else 0
    if len(turns) > n and turns[n]["role"] == "assistant":
        return [*turns[:n], {"role": "user", "content": ""}, *turns[n:]]
    return turns


def _paragraphs(*contents: str | None) -> str:
    return "\n\n".join(content for content in contents if content)


def _lines(*contents: str | None) -> str:
    return "\n".join(content for content in contents if content)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
