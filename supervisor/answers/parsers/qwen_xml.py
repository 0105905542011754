"""Qwen3-Coder and Qwen 3.5 on: `<function=NAME>` with `<parameter=KEY>` blocks in `<tool_call>`.

Models leave out `<tool_call>` or a closing tag at times; such a call is read all the same.
"""

import re

from gpufc.answer_format import KEY, Members, Span
from supervisor.answers.parsers.answer import Answer, attempt
from supervisor.answers.parsers.family import Family, Prose, Setup
from supervisor.answers.parsers.tagged import Closers, argument
from supervisor.answers.parsers.tape import Steps, Tape
from supervisor.answers.parsers.typed import Arguments, parameter_types
from supervisor.answers.style import NAME as CALLED
from supervisor.answers.style import Style

OPEN, CLOSE = "<tool_call>", "</tool_call>"
FUNCTION, END_FUNCTION = "<function=", "</function>"
PARAMETER, END_PARAMETER = "<parameter=", "</parameter>"

PROSE = Prose([OPEN, FUNCTION])
NAME = re.compile(r"[^<>\s]*")
CLOSERS = Closers(
    {
        "\n" + END_PARAMETER: (PARAMETER, END_FUNCTION, CLOSE),
        END_PARAMETER: (PARAMETER, END_FUNCTION, CLOSE),
        "\n" + PARAMETER: None,
        "\n" + END_FUNCTION: (CLOSE,),
        "\n" + CLOSE: (OPEN,),
    }
)


def run(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    while marker := (yield from PROSE.next_call(tape, answer, setup.tools)):
        answer.open(marker)
        yield from attempt(_call(tape, answer, setup, marker), answer)


def _call(tape: Tape, answer: Answer, setup: Setup, marker: str) -> Steps[None]:
    if marker == OPEN:
        yield from tape.space()
        yield from tape.expect(FUNCTION)
    name = yield from _name(tape)
    answer.name(name)
    arguments = Arguments(answer)
    yield from tape.space()
    tag = yield from tape.expect(PARAMETER, END_FUNCTION, CLOSE)
    while tag == PARAMETER:
        key = yield from _name(tape)
        yield from tape.accept("\n")
        arguments.key(key)
        types = parameter_types(setup, name, key)
        closing = yield from argument(tape, CLOSERS, arguments, types)
        tag = closing.strip()
        if tag == END_PARAMETER:
            tag = yield from tape.expect(PARAMETER, END_FUNCTION, CLOSE)
    arguments.end()
    if tag == END_FUNCTION:
        yield from tape.space()
        yield from tape.accept(CLOSE)


def _name(tape: Tape) -> Steps[str]:
    name = yield from tape.something((yield from tape.word(NAME)))
    yield from tape.expect(">")
    return name


def style(_template: str) -> Style:
    around = Span(f"{PARAMETER}{KEY}>\n", f"\n{END_PARAMETER}\n")
    ends = (END_PARAMETER, *(f"\n{tag}" for tag in (PARAMETER, END_FUNCTION, CLOSE)))
    return Style(
        call=Span(f"{OPEN}\n{FUNCTION}{CALLED}>\n", f"{END_FUNCTION}\n{CLOSE}"),
        between="\n",
        members=Members(around, around, forbidden=ends),
        trigger=OPEN,
        forbidden=(OPEN, FUNCTION),
    )


QWEN_XML = Family(
    name="qwen-xml",
    run=run,
    style=style,
    template=((FUNCTION, PARAMETER),),
    markers=(OPEN, CLOSE, "<think>", "</think>"),
)
