"""Hermes, Qwen 2.5 and Qwen 3: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`."""

from gpufc.answer_format import Span
from supervisor.answers.parsers import jsontext
from supervisor.answers.parsers.answer import Answer, attempt, closing
from supervisor.answers.parsers.family import Family, Prose, Setup
from supervisor.answers.parsers.tape import Steps, Tape
from supervisor.answers.style import NAME, Style

OPEN, CLOSE = "<tool_call>", "</tool_call>"

PROSE = Prose([OPEN])


def run(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    while marker := (yield from PROSE.next_call(tape, answer, setup.tools)):
        answer.open(marker)
        if (yield from attempt(_call(tape, answer), answer)):
            yield from closing(tape, answer, CLOSE)  # some models leave it out


def _call(tape: Tape, answer: Answer) -> Steps[None]:
    yield from tape.space()
    yield from jsontext.call(tape, answer)


def style(_template: str) -> Style:
    return Style(
        call=Span(f'{OPEN}\n{{"name": "{NAME}", "arguments": ', f"}}\n{CLOSE}"),
        between="\n",
        trigger=OPEN,
        forbidden=(OPEN,),
    )


HERMES = Family(
    name="hermes",
    run=run,
    style=style,
    template=((OPEN,),),
    markers=(OPEN, CLOSE, "<think>", "</think>"),
)
