"""Conversations as agents send them, through templates with the habits of public ones."""

from typing import Any

import pytest

from engine_worker.prompts.chat_template import ChatTemplate, TemplateError
from engine_worker.prompts.conversation import Conversation, Message
from engine_worker.prompts.traits import CallForm

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ROLES = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
REFUSES_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
)
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}"
)
FIRST_SYSTEM_ONLY = (
    "{% if messages[0].role == 'system' %}[system]{{ messages[0].content }}{% endif %}"
    "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}{% endfor %}"
)
WITH_CALLS = (
    "{% if tools %}{% for t in tools %}<{{ t | tojson }}>{% endfor %}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{% if m.content %}{{ m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}CALL{% endfor %}{% endfor %}"
)


def calls_as(form: str) -> str:
    """A template with tools that writes a call in this form."""
    return WITH_CALLS.replace("CALL", "(" + form + ")")


def said(role: str, content: str | None, **more: Any) -> Message:
    return {"role": role, "content": content, **more}


def call(name: str = "get_weather", own_id: str = "call_1") -> dict[str, Any]:
    function = {"name": name, "arguments": {"city": "Oslo"}}
    return {"id": own_id, "type": "function", "function": function}


def rendered(source: str, *messages: Message, tools: bool = False, **more: Any) -> str:
    given = Conversation(list(messages), tools=[TOOL] if tools else None, **more)
    return ChatTemplate(source, {}).render(given)


SYSTEM, USER, ANSWER = said("system", "S"), said("user", "U"), said("assistant", "A")


@pytest.mark.parametrize(
    ("source", "messages", "expected"),
    [
        (ROLES, [SYSTEM, USER, SYSTEM, USER], "[system]S[user]U[system]S[user]U"),
        (ROLES, [SYSTEM, SYSTEM, USER], "[system]S\n\nS[user]U"),
        (ROLES, [USER, USER], "[user]U[user]U"),
        (ROLES, [USER, SYSTEM], "[user]U[system]S"),
        (REFUSES_SYSTEM + ROLES, [SYSTEM, USER], "[user]S\n\nU"),
        (REFUSES_SYSTEM + ROLES, [SYSTEM, USER, ANSWER, USER], "[user]S\n\nU[assistant]A[user]U"),
        (REFUSES_SYSTEM + ROLES, [USER, ANSWER, SYSTEM, USER], "[user]U[assistant]A[user]S\n\nU"),
        (REFUSES_SYSTEM + ROLES, [SYSTEM], "[user]S"),
        (FIRST_SYSTEM_ONLY, [SYSTEM, USER], "[system]S[user]U"),
        (FIRST_SYSTEM_ONLY, [SYSTEM, USER, SYSTEM], "[system]S[user]U\n\nS"),
        (FIRST_SYSTEM_ONLY, [USER, ANSWER, SYSTEM, USER], "[user]U[assistant]A[user]S\n\nU"),
        (ALTERNATES + ROLES, [SYSTEM, USER, USER], "[user]S\n\nU\n\nU"),
        (ALTERNATES + ROLES, [USER, ANSWER, ANSWER, USER], "[user]U[assistant]A\n\nA[user]U"),
        (ALTERNATES + ROLES, [USER, ANSWER, SYSTEM, USER], "[user]U[assistant]A[user]S\n\nU"),
        (ALTERNATES + ROLES, [ANSWER, USER], "[user][assistant]A[user]U"),
    ],
)  # fmt: skip
def test_a_turn_that_a_template_refuses_is_folded_into_its_neighbour(
    source: str, messages: list[Message], expected: str
) -> None:
    assert rendered(source, *messages) == expected


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("{{ c.function.name }} {{ c.function.arguments | tojson }}", CallForm()),
        ("{{ c.function | tojson }}", CallForm()),
        ("{{ c.function.name }} {{ c.function.arguments }}", CallForm(is_text=True)),
        ("{{ c.function.name + c.function.arguments }}", CallForm(is_text=True)),
        (
            "{% if c.id | length != 9 %}{{ raise_exception('ids have 9 characters') }}{% endif %}"
            "{{ c.id }} {{ c.function | tojson }}",
            CallForm(has_short_ids=True),
        ),
    ],
)
def test_calls_are_given_in_the_form_that_a_template_reads(form: str, expected: CallForm) -> None:
    source = calls_as(form)
    assert ChatTemplate(source, {}).traits.calls == expected
    turn = said("assistant", "", tool_calls=[call()])
    text = rendered(source, USER, turn, said("tool", "R", tool_call_id="call_1"), tools=True)
    assert "get_weather" in text.partition("[assistant]")[2]
    assert '{"city": "Oslo"}' in text
    assert text.endswith("[tool]R")


def test_calls_that_need_null_content_get_it() -> None:
    source = (
        "{% for m in messages %}{% if m.content is none %}{% for c in m.tool_calls %}"
        "{{ c.function | tojson }}{% endfor %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    assert ChatTemplate(source, {}).traits.calls == CallForm(is_null=True)
    assert "Oslo" in rendered(source, USER, said("assistant", "", tool_calls=[call()]), USER)


TEXT_OR_CALLS = (
    "{% for m in messages %}[{{ m.role }}]{% if CALLS %}"
    "{% for c in m.tool_calls %}({{ c.function | tojson }}){% endfor %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)


BY_CALLS = TEXT_OR_CALLS.replace("CALLS", "m.tool_calls")
REFUSES_USERS_IN_A_ROW = (
    "{% for m in messages %}{% if m.role == 'user' and not loop.first"
    " and loop.previtem.role == 'user' %}"
    "{{ raise_exception('two user turns in a row') }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    "source",
    [
        BY_CALLS,
        TEXT_OR_CALLS.replace("CALLS", "m.content is none"),
        REFUSES_USERS_IN_A_ROW + BY_CALLS,
    ],
)
def test_a_text_beside_calls_gets_a_turn_of_its_own_where_one_of_them_would_be_lost(
    source: str,
) -> None:
    turn = said("assistant", "I look.", tool_calls=[call()], reasoning_content="R")
    text = rendered(source, USER, turn, said("tool", "R", tool_call_id="call_1"))
    before, _, behind = text.partition("[assistant]I look.[assistant]")
    assert before == "[user]U"
    assert '"city": "Oslo"' in behind


def test_a_text_beside_calls_stays_where_it_is_rendered() -> None:
    source = calls_as("{{ c.function | tojson }}")
    text = rendered(source, USER, said("assistant", "I look.", tool_calls=[call()]), USER)
    assert text.count("[assistant]") == 1
    assert "[assistant]I look.(" in text


ALTERNATES_BUT_FOR_CALLS = (
    "{% set ns = namespace(n=0) %}"
    "{% for m in messages %}{% if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls)"
    " %}{% if (m.role == 'user') != (ns.n % 2 == 0) %}{{ raise_exception('must alternate') }}"
    "{% endif %}{% set ns.n = ns.n + 1 %}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("source", "result"),
    [
        (ALTERNATES_BUT_FOR_CALLS + BY_CALLS, "[tool]I look.\n\nR1[tool]R2"),
        (
            ALTERNATES + BY_CALLS,
            "[user]<tool_response>\nI look.\n\nR1\n</tool_response>\n\n"
            "<tool_response>\nR2\n</tool_response>",
        ),
    ],
    ids=["results", "no results"],
)
def test_a_text_beside_calls_becomes_a_part_of_the_result_where_it_may_have_no_turn(
    source: str, result: str
) -> None:
    turn = said("assistant", "I look.", tool_calls=[call(own_id="a"), call(own_id="b")])
    results = [said("tool", "R1", tool_call_id="a"), said("tool", "R2", tool_call_id="b")]
    text = rendered(source, USER, turn, *results, ANSWER, USER)
    before, _, behind = text.partition(result)
    assert before.startswith("[user]U[assistant]({")
    assert before.count('"city": "Oslo"') == 2
    assert behind == "[assistant]A[user]U"


def test_the_texts_of_several_steps_stay_where_no_answer_may_follow_an_answer() -> None:
    source = ALTERNATES_BUT_FOR_CALLS + BY_CALLS
    result = said("tool", "R", tool_call_id="call_1")
    steps = [said("assistant", text, tool_calls=[call()]) for text in ("I look.", "Again.")]
    text = rendered(source, USER, steps[0], result, ANSWER, steps[1], result, ANSWER, USER)
    assert "[tool]I look.\n\nR[assistant](" in text
    assert text.endswith("[tool]A\n\nAgain.\n\nR[assistant]A[user]U")


@pytest.mark.parametrize("habit", [ALTERNATES_BUT_FOR_CALLS, ALTERNATES])
def test_a_text_beside_calls_without_a_result_is_lost_only_where_it_may_have_no_turn(
    habit: str,
) -> None:
    turn = said("assistant", "I look.", tool_calls=[call()])
    assert "I look." in rendered(BY_CALLS, USER, turn)
    text = rendered(habit + BY_CALLS, USER, turn)
    assert text.startswith("[user]U[assistant]({")
    assert "I look." not in text


def test_a_user_s_text_behind_a_result_becomes_a_part_of_it_where_no_user_may_follow() -> None:
    """As agents send it: a result of a tool and a note in one turn."""
    source = ALTERNATES_BUT_FOR_CALLS + calls_as("{{ c.function | tojson }}")
    turn = said("assistant", "", tool_calls=[call()])
    result = said("tool", "R", tool_call_id="call_1")
    text = rendered(source, USER, turn, result, said("user", "Note"), USER, tools=True)
    assert text.endswith("[tool]R\n\nNote\n\nU")
    text = rendered(source, USER, turn, result, said("user", "Note"), ANSWER, USER, tools=True)
    assert text.endswith("[tool]R\n\nNote[assistant]A[user]U")


def test_a_user_s_text_behind_a_result_is_a_turn_where_one_may_follow() -> None:
    source = calls_as("{{ c.function | tojson }}")
    turn = said("assistant", "", tool_calls=[call()])
    text = rendered(source, USER, turn, said("tool", "R", tool_call_id="call_1"), USER, tools=True)
    assert text.endswith("[tool]R[user]U")


def test_calls_are_native_also_if_those_of_the_last_message_are_not_rendered() -> None:
    source = calls_as("{{ c.function | tojson }}").replace(
        "{% for m in messages %}",
        "{% set shown = messages[:-1] if messages[-1].role == 'assistant' else messages %}"
        "{% for m in shown %}",
    )
    turn = said("assistant", "", tool_calls=[call("f", "a"), call("g", "b")])
    results = [said("tool", "R1", tool_call_id="a"), said("tool", "R2", tool_call_id="b")]
    text = rendered(source, USER, turn, *results, tools=True)
    assert "<tool_call>" not in text
    assert text.endswith("[tool]R1[tool]R2")
    assert text.count('"arguments": {"city": "Oslo"}') == 2


def test_ids_of_nine_digits_keep_results_with_their_calls() -> None:
    source = calls_as(
        "{% if c.id | length != 9 %}{{ raise_exception('') }}{% endif %}{{ c.id }}"
        "{{ c.function | tojson }}"
    ).replace("[{{ m.role }}]", "[{{ m.tool_call_id }}]")
    calls = said("assistant", "", tool_calls=[call(own_id="a"), call(own_id="b")])
    text = rendered(source, USER, calls, said("tool", "R", tool_call_id="b"))
    assert "(000000000" in text
    assert "(000000001" in text
    assert text.endswith("[000000001]R")


@pytest.mark.parametrize(
    "habit",
    [
        "{% if m.tool_calls | length > 1 %}{{ raise_exception('one call at once') }}{% endif %}",
        "",
    ],
)
def test_calls_are_given_one_by_one_to_a_template_that_takes_one(habit: str) -> None:
    source = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.tool_calls %}"
        f"{habit}({{{{ m.tool_calls[0].function | tojson }}}}){{% endif %}}{{% endfor %}}"
    )
    calls = said("assistant", "C", tool_calls=[call("f", "a"), call("g", "b")])
    results = [said("tool", "R1", tool_call_id="a"), said("tool", "R2", tool_call_id="b")]
    arguments = '"arguments": {"city": "Oslo"}'
    assert rendered(source, USER, calls, *results, said("tool", "R3")) == (
        f'[user]U[assistant]C({{"name": "f", {arguments}}})[tool]R1'
        f'[assistant]({{"name": "g", {arguments}}})[tool]R2[tool]R3'
    )


def test_a_template_made_for_tools_only_is_usable_without() -> None:
    assert rendered("{% for t in tools %}x{% endfor %}" + ROLES, USER) == "[user]U"


def test_a_template_without_tools_gets_them_described() -> None:
    turn = said("assistant", "Well.", tool_calls=[call()])
    result = said("tool", "Rain", tool_call_id="call_1")
    text = rendered(ROLES, SYSTEM, USER, turn, result, said("user", "And?"), tools=True)
    system, _, rest = text.partition("[user]U")
    assert system.startswith("[system]# Tools")
    assert '"name": "get_weather"' in system
    assert system.endswith("\n\nS")
    assert rest == (
        '[assistant]Well.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n'
        "</tool_call>[user]<tool_response>\nRain\n</tool_response>\n\nAnd?"
    )


def test_a_template_without_tools_and_system_gets_them_in_the_user_s_turn() -> None:
    text = rendered(REFUSES_SYSTEM + ROLES, USER, tools=True)
    assert text.startswith("[user]# Tools")
    assert text.endswith("\n\nU")


def test_a_template_with_tools_gets_them_as_objects() -> None:
    text = rendered(calls_as("{{ c.function | tojson }}"), SYSTEM, USER, tools=True)
    assert text.startswith('<{"type": "function", "function": {"name": "get_weather"')


@pytest.mark.parametrize(
    ("content", "expected"),
    [("The answer", "The answer"), ("ends in a blank ", "ends in a blank "), ("", "")],
)
def test_a_last_message_of_an_assistant_is_continued(content: str, expected: str) -> None:
    messages = [USER, said("assistant", content)]
    given = Conversation(messages, add_generation_prompt=False, continues=True)
    assert ChatTemplate(None, {}).render(given) == (
        f"<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n{expected}"
    )


def test_a_template_that_drops_a_last_answer_cannot_continue_it() -> None:
    source = "{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}"
    given = Conversation([USER, ANSWER], add_generation_prompt=False, continues=True)
    with pytest.raises(TemplateError, match="to be continued"):
        ChatTemplate(source, {}).render(given)


def test_variables_reach_a_template_but_not_in_place_of_its_own() -> None:
    source = ROLES + "{{ effort }}{{ tools is none }}"
    assert rendered(source, USER, variables={"effort": "low", "tools": 5}) == "[user]UlowTrue"
