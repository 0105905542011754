from pathlib import Path

import pytest

from engine_worker.model_file.gguf_header import read_header
from engine_worker.prompts.chat_template import MAX_SOURCE_CHARS, ChatTemplate
from gpufc.errors import InvalidRequest
from gpufc.protocol import ChatMessage

HELLO = (ChatMessage("system", "Be brief."), ChatMessage("user", "Hallo 🙂 世界"))


def render(source: str | None, *messages: ChatMessage) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(messages, add_generation_prompt=True)


def refusal(source: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        render(source, *HELLO)
    assert caught.value.param == "messages"
    assert "\n" not in caught.value.message
    return caught.value.message


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
        ("{% for m in messages %}{% if m.role == 'user' %}{% break %}{% endif %}x{%endfor%}", "x"),
        ("{% if true %}\n  x\n{% endif %}\n", "  x\n"),  # trim_blocks, and lstrip_blocks
        ("{{ {'a': '<é>'} | tojson }}", '{"a": "<é>"}'),
        ("{{ messages[1].name is defined }}", "False"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{% if tools %}tools{% else %}none{% endif %}", "none"),
    ],
)  # fmt: skip
def test_templates_find_what_hugging_face_gives_them(source: str, expected: str) -> None:
    assert render(source, *HELLO) == expected


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
    assert render(source, *HELLO) == ""


def test_sizes_are_bounded() -> None:
    assert "characters" in refusal("x" * (MAX_SOURCE_CHARS + 1))
    many = "{% for i in range(90000) %}{{ messages[1].content * 100 }}{% endfor %}"
    assert "output" in refusal(many)


def test_half_a_surrogate_pair_cannot_come_out() -> None:
    assert render(r"{{ '\ud83d' }}") == "?"


@pytest.mark.model
def test_smollm2_s_own_template(model_path: Path) -> None:
    source = read_header(model_path).text("tokenizer.chat_template")
    text = ChatTemplate(source, "<|im_start|>", "<|im_end|>").render(
        HELLO, add_generation_prompt=True
    )
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHallo 🙂")
    assert text.endswith("<|im_start|>assistant\n")
