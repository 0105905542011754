import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from engine_worker.model_file.gguf_header import read_header
from engine_worker.prompts.chat_template import ChatTemplate, TemplateError
from engine_worker.prompts.conversation import Conversation, Message
from engine_worker.prompts.folding import folded
from engine_worker.prompts.templates import MAX_SOURCE_CHARS


def user(content: str) -> Message:
    return {"role": "user", "content": content}


HELLO = ({"role": "system", "content": "Be brief."}, user("Hallo 🙂 世界"))
SAID = "{% for m in messages %}{{ m.content }}{% endfor %}"
"""The part of a template that makes it one."""
ALL_SAID = "".join(message["content"] for message in HELLO)


def render(source: str | None, *messages: Message) -> str:
    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<p>"})
    return template.render(Conversation(list(messages)))


def refusal(source: str, *messages: Message) -> str:
    with pytest.raises(TemplateError) as caught:
        render(source, *(messages or HELLO))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_without_template_gets_chatml() -> None:
    assert render(None, *HELLO) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHallo 🙂 世界<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "<s>Be brief.</s>"),
        ("{{ pad_token }}|{{ unk_token is defined }}", "<p>|False"),
        ("{% for m in messages %}{% if m.role == 'user' %}{% break %}{% endif %}x{%endfor%}", "x"),
        ("{% if true %}\n  x\n{% endif %}\n", "  x\n"),  # trim_blocks, and lstrip_blocks
        ("{{ {'a': '<é>'} | tojson }}", '{"a": "<é>"}'),
        ("{{ messages[1].name is defined }}", "False"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{% if tools %}tools{% else %}none{% endif %}", "none"),
        ("{% if tools is not none %}tools{% endif %}{{ tools is defined }}", "True"),
        ("{{ documents is none }}", "True"),
    ],
)  # fmt: skip
def test_templates_find_what_hugging_face_gives_them(source: str, expected: str) -> None:
    assert render(source + "|" + SAID, *HELLO) == f"{expected}|{ALL_SAID}"


def test_a_template_s_own_refusal_reaches_the_client() -> None:
    assert "roles must alternate" in refusal("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages.clear() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ '%s'|format(messages)|attr('__class__') ~ lipsum.__globals__['os'].popen('id') }}",
        "{% include '/etc/passwd' %}",
        "{{ range(10000000) }}",
        "{{ 1 / 0 }}",
        "{{ undefined_name.attribute }}",
        "{% for",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ ('x' * 1000000) * 20 }}",
    ],
)
def test_what_a_template_may_not_do_is_refused(source: str) -> None:
    refusal(source)


@pytest.mark.parametrize(
    "source", ["{{ raise_exception.__globals__ }}", "{{ ''|attr('__class__')|attr('__mro__') }}"]
)
def test_python_s_insides_are_as_if_they_were_not_there(source: str) -> None:
    assert render(source + SAID, *HELLO) == ALL_SAID


def test_sizes_are_bounded() -> None:
    assert "characters" in refusal("x" * (MAX_SOURCE_CHARS + 1))
    many = "{% for i in range(90000) %}{{ messages[0].content * 100 }}{% endfor %}"
    assert "output" in refusal(many)


def test_half_a_surrogate_pair_cannot_come_out() -> None:
    assert render(r"{{ '\ud83d' }}" + SAID, user("x")) == "?x"


PARTS = (
    "{% for m in messages %}{{ m['role'] }}: {% for p in m['content'] %}"
    "{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}{% endfor %};{% endfor %}"
)


def test_templates_that_iterate_over_parts_are_given_parts() -> None:
    assert render(PARTS, *HELLO) == "system: Be brief.;user: Hallo 🙂 世界;"


ROLE, TEXTS = "{{ m.role }}: ", "{% for p in m.content %}{{ p.text }}{% endfor %};"
TEXT = "{{ m.content }};"
CALLS = "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"


@pytest.mark.parametrize(
    "said",
    [
        "{% if m.role == 'user' %}" + TEXTS + "{% else %}" + TEXT + "{% endif %}",
        "{% if m.role == 'system' %}" + TEXT + "{% else %}" + TEXTS + "{% endif %}",
        "{% if m.role == 'system' %}" + TEXTS + "{% else %}" + TEXT + "{% endif %}",
        "{% if m.role == 'assistant' %}" + TEXT + "{% else %}" + TEXTS + "{% endif %}",
        "{% if m.role == 'tool' %}" + TEXTS + "{% else %}" + TEXT + "{% endif %}",
        "{% if m.role == 'tool' %}" + TEXT + "{% else %}" + TEXTS + "{% endif %}",
        "{{ m.content[0].text }};",
    ],
)
def test_each_role_is_given_what_the_template_takes_for_it(said: str) -> None:
    source = "{% for m in messages %}" + ROLE + CALLS + said + "{% endfor %}"
    function = {"name": "f", "arguments": {"a": 1}}
    call = {"id": "c1", "type": "function", "function": function}
    calling = {"role": "assistant", "content": "Wait.", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "42"}
    assert render(source, HELLO[0], user("Go."), calling, result) == (
        'system: Be brief.;user: Go.;assistant: {"name": "f", "arguments": {"a": 1}}Wait.;tool: 42;'
    )


def test_a_template_that_writes_nothing_of_what_a_user_says_is_an_error() -> None:
    assert "leaves out what the user says" in refusal("fixed text")


def test_a_conversation_whose_last_message_the_template_drops_is_refused() -> None:
    source = "{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}"
    answer = {"role": "assistant", "content": "42 degrees"}
    assert "leaves out the last message (assistant)" in refusal(source, user("x"), answer)
    assert render(source, answer, user("x")) == "x"


@pytest.mark.parametrize("word", ["yes", "x", "The same long words again and again. " * 3])
def test_a_last_message_is_missed_also_if_another_one_says_the_same(word: str) -> None:
    source = "{% for m in messages[:2] %}{{ m.role }}: {{ m.content }};{% endfor %}"
    said = (user(word), {"role": "assistant", "content": word}, user(word))
    assert "leaves out the last message (user)" in refusal(source, *said)
    assert render(source, *said[:2]) == f"user: {word};assistant: {word};"


@pytest.mark.parametrize("first", ["yes", "I say user: yes", "user: yes\n"])
def test_an_earlier_message_does_not_stand_for_the_last_one(first: str) -> None:
    source = "{% for m in messages[:end] %}{{ m.role }}: {{ m.content }}{% endfor %}"
    said = (user(first), {"role": "assistant", "content": "no"}, user("yes"))
    assert "leaves out the last message (user)" in refusal("{% set end = 1 %}" + source, *said)
    assert render("{% set end = 3 %}" + source, *said).endswith("assistant: nouser: yes")


LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("source", [None, LLAMA_2, PARTS])
@pytest.mark.parametrize("word", ["a", "yes", " yes\n", "The same words as before. " * 3])
def test_a_message_in_the_frame_of_its_role_is_rendered_once(
    source: str | None, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = ChatTemplate(source, {})
    rendered = Recorder(template._rendered)
    monkeypatch.setattr(template, "_rendered", rendered)
    answer = {"role": "assistant", "content": f"You said {word}, as others did."}
    for messages in ([user(word)], [user("Hallo"), answer, user(word)]):
        assert word.strip() in template.render(Conversation(messages))
    assert rendered.n_calls == 2


SHOWN = (
    "{{ m.role }}: {{ m.content }};",
    "{{ m.content }}",
    "[INST] {{ m.content | trim }} [/INST]",
    "user: {{ m.content }}\n",
)
DROPPING = [
    ChatTemplate(some + shown + "{% endfor %}" + end, {})
    for some in ("{% for m in messages[:2] %}", "{% for m in messages if m.content | length > 2 %}")
    for shown in SHOWN
    for end in ("", "user: yes;", "assistant:")
]
"""Templates that leave some messages out."""
WORDS = st.sampled_from(
    ["yes", "no", "a", "user: yes", "yes;user: yes", "assistant:", "x\nuser: yes", ";", " yes "]
)


@drawn(st.sampled_from(DROPPING), st.lists(WORDS, min_size=1, max_size=6))
def test_no_text_shows_a_message_that_is_left_out(template: ChatTemplate, words: list[str]) -> None:
    roles = itertools.cycle(("user", "assistant"))
    said = [{"role": role, "content": word} for role, word in zip(roles, words, strict=False)]
    given = folded(Conversation([*said, user("yes")]), template.traits)
    text = template._rendered(given)
    if template._tells(given.messages[-1]["content"], given, text):
        assert not template._leaves_out_last(given, text)


class Recorder:
    """Counts the calls of a function."""

    def __init__(self, call: Callable[[Conversation], str]) -> None:
        self._call = call
        self.n_calls = 0

    def __call__(self, given: Conversation) -> str:
        self.n_calls += 1
        return self._call(given)


def test_of_a_last_message_with_calls_the_calls_are_enough() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    last = {"role": "assistant", "content": "Wait.", "tool_calls": [call]}
    said = "{% if m.tool_calls %}" + CALLS + "{% else %}" + TEXT + "{% endif %}"
    # so the text cannot have a turn of its own
    said += "{% if loop.previtem and loop.previtem.role == m.role %}{{ raise_exception('') }}"
    said += "{% endif %}"
    shown = '{"name": "f", "arguments": {"a": 1}}'
    assert render("{% for m in messages %}" + said + "{% endfor %}", user("x"), last) == (
        f"x;{shown}"
    )
    dropping = "{% for m in messages if not m.content or not m.tool_calls %}"
    assert "leaves out the last message (assistant)" in refusal(
        dropping + said + "{% endfor %}", user("x"), last
    )


def test_a_template_that_refuses_another_content_reads_it() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'assistant' and m.content[0] != '{' %}"
        "{{ raise_exception('answers are JSON') }}{% endif %}" + TEXT + "{% endfor %}"
    )
    assert render(source, user("x"), {"role": "assistant", "content": "{}"}) == "x;{};"


@pytest.mark.parametrize("source", ["{{ messages[-1].content | trim }}", "{{ messages | tojson }}"])
def test_a_template_may_change_what_the_last_message_says(source: str) -> None:
    assert "quoted" in render(source, user('  a "quoted"\n word  '))


@pytest.mark.model
def test_smollm2_s_own_template(model_path: Path) -> None:
    source = read_header(model_path).text("tokenizer.chat_template")
    text = render(source, *HELLO)
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHallo 🙂")
    assert text.endswith("<|im_start|>assistant\n")
