"""Long arguments are streamed, and read once."""

import json

import pytest

from gpufc.protocol import FinishReason
from supervisor.answers.parsers import FAMILIES, parser_for
from supervisor.answers.parsers.answer import HELD, Answer
from supervisor.answers.parsers.family import Family, Incremental, Setup
from supervisor.answers.parsers.tape import Steps, Tape
from supervisor.answers.parts import Ended, Part, ToolCallArguments, ToolCallBegun, joined

SCHEMAS = {"w": {"properties": {"content": {"type": "string"}}}}
LINE = 'a line of "code" = f(x) \\ é\n'
PIECE = 4

JSON = '{"content": %s}'
FORMATS = {
    "harmony": (" to=functions.w<|channel|>commentary<|message|>", JSON, ""),
    "kimi-k3": (
        '<|open|>call tool="w"<|sep|><|open|>argument key="content" type="string"<|sep|>',
        "%s",
        "<|close|>argument<|sep|><|close|>call<|sep|>",
    ),
    "kimi": ("<|tool_call_begin|>functions.w:0<|tool_call_argument_begin|>", JSON, ""),
    "deepseek-dsml": (
        '<\uff5cDSML\uff5cinvoke name="w"><\uff5cDSML\uff5cparameter name="content">',
        "%s",
        "</\uff5cDSML\uff5cparameter></\uff5cDSML\uff5cinvoke>",
    ),
    "deepseek": ("<\uff5ctool\u2581call\u2581begin\uff5c>w<\uff5ctool\u2581sep\uff5c>", JSON, ""),
    "glm": ("<tool_call>w<arg_key>content</arg_key><arg_value>", "%s", "</arg_value></tool_call>"),
    "qwen-xml": (
        "<tool_call>\n<function=w>\n<parameter=content>\n",
        "%s",
        "\n</parameter>\n</function>\n</tool_call>",
    ),
    "mistral": ("[TOOL_CALLS]w[ARGS]", JSON, ""),
    "gemma": ('<|tool_call>call:w{content:<|"|>', "%s", '<|"|>}<tool_call|>'),
    "llama": ('{"name": "w", "parameters": ', JSON, "}"),
    "hermes": ('<tool_call>{"name": "w", "arguments": ', JSON, "}</tool_call>"),
    "json": ('[{"name": "w", "arguments": ', JSON, "}]"),
}


def text_of(family: Family, content: str) -> str:
    """A call of `w` with this content."""
    begin, form, end = FORMATS[family.name]
    return begin + form % (json.dumps(content) if form == JSON else content) + end


def pieces_of(text: str) -> list[str]:
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_long_arguments_come_piece_by_piece_as_json(family: Family) -> None:
    content = LINE * 200
    parser = parser_for(None, tools=True, override=family.name, schemas=SCHEMAS)()
    streamed: list[Part] = [
        part for piece in pieces_of(text_of(family, content)) for part in parser.feed(piece)
    ]
    begun, arguments, ended = joined([*streamed, *parser.end(FinishReason.STOP)])
    assert isinstance(begun, ToolCallBegun)
    assert begun.name == "w"
    assert isinstance(arguments, ToolCallArguments)
    assert json.loads(arguments.text) == {"content": content}
    assert ended == Ended(FinishReason.STOP, 1)
    longest = max(len(part.text) for part in streamed if isinstance(part, ToolCallArguments))
    assert longest <= 2 * HELD
    assert len(streamed) > len(content) / PIECE / 4


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_character_is_read_once(family: Family) -> None:
    tapes: list[Tape] = []

    def watched(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
        tapes.append(tape)
        return family.run(tape, answer, setup)

    text = text_of(family, LINE * (100_000 // len(LINE)))
    parser = Incremental(watched, Setup(tools=True, schemas=SCHEMAS))
    n_in_sight = 0
    for piece in pieces_of(text):
        parser.feed(piece)
        n_in_sight += len(tapes[0].text)
    parser.end(FinishReason.STOP)
    assert len(text) <= n_in_sight < 2 * len(text)
