# ruff: noqa: RUF001, RUF002  (the model's own tokens have these letters)
"""DeepSeek V3, R1 and V3.1: calls between `<｜tool▁calls▁begin｜>` and `<｜tool▁calls▁end｜>`.

V3 and R1 write `function<｜tool▁sep｜>NAME` and a block of code with the arguments, V3.1
`NAME<｜tool▁sep｜>{…}`.
"""

import re

from gpufc.answer_format import Span
from supervisor.answers.parsers import jsontext
from supervisor.answers.parsers.answer import Answer, attempt, closing
from supervisor.answers.parsers.family import Family, Prose, Setup
from supervisor.answers.parsers.tape import Steps, Tape
from supervisor.answers.style import NAME as CALLED
from supervisor.answers.style import Style

SECTION, END_SECTION = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, END_CALL = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
SEPARATOR = "<｜tool▁sep｜>"

PROSE = Prose([SECTION, CALL])
NAME = re.compile(r"[^<>{}\"\s]*")


def run(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    while marker := (yield from PROSE.next_call(tape, answer, setup.tools)):
        answer.open(marker)
        while (yield from attempt(_call(tape, answer, marker), answer)):
            marker = yield from closing(tape, answer, CALL, END_SECTION)
            if marker != CALL:
                break
            answer.open(marker)


def _call(tape: Tape, answer: Answer, marker: str) -> Steps[None]:
    if marker == SECTION:
        yield from tape.space()
        yield from tape.expect(CALL)
    yield from tape.space()
    name = yield from tape.something((yield from tape.word(NAME)))
    yield from tape.expect(SEPARATOR)
    yield from tape.space()
    if name == "function" and (yield from tape.peek()) != "{":
        name = yield from tape.something((yield from tape.word(NAME)))
    answer.name(name)
    yield from tape.space()
    yield from tape.accept("```json")
    yield from tape.space()
    yield from jsontext.arguments(tape, answer)
    yield from tape.space()
    yield from tape.accept("```")
    yield from tape.space()
    yield from tape.accept(END_CALL)


def style(template: str) -> Style:
    begin, end, between = f"{CALL}{CALLED}{SEPARATOR}", END_CALL, ""
    if "```json" in template:
        begin, end = f"{CALL}function{SEPARATOR}{CALLED}\n```json\n", f"\n```{END_CALL}"
        between = "\n"
    return Style(
        call=Span(begin, end),
        section=Span(SECTION, END_SECTION),
        between=between,
        trigger=SECTION,
        forbidden=(SECTION, CALL),
    )


DEEPSEEK = Family(
    name="deepseek",
    run=run,
    style=style,
    template=((SECTION,),),
    markers=(SECTION, END_SECTION, CALL, END_CALL, SEPARATOR, "<think>", "</think>"),
)
