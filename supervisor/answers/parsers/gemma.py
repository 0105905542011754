"""Gemma 4: `<|tool_call>call:NAME{key:<|"|>text<|"|>,…}<tool_call|>`."""

import re

from gpufc.answer_format import KEY, Members, Span
from supervisor.answers.parsers import literal
from supervisor.answers.parsers.answer import Answer, attempt
from supervisor.answers.parsers.family import Family, Prose, Setup
from supervisor.answers.parsers.tape import Steps, Tape
from supervisor.answers.parsers.typed import Arguments
from supervisor.answers.style import NAME as CALLED
from supervisor.answers.style import Style

OPEN, CLOSE = "<|tool_call>", "<tool_call|>"
THINKING, THOUGHT = "<|channel>thought", "<channel|>"
QUOTE = '<|"|>'

PROSE = Prose([OPEN], [THINKING], [THOUGHT], anywhere=True)
NAME = re.compile(r"[^<>{}\"\s]*")


def run(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    while marker := (yield from PROSE.next_call(tape, answer, setup.tools)):
        answer.open(marker)
        yield from attempt(_call(tape, answer), answer)


def _call(tape: Tape, answer: Answer) -> Steps[None]:
    yield from tape.space()
    yield from tape.expect("call:")
    answer.name((yield from tape.something((yield from tape.word(NAME)))))
    yield from tape.expect("{")
    arguments = Arguments(answer)
    yield from tape.space()
    end = yield from tape.accept("}")
    while not end:
        arguments.key((yield from literal.key_text(tape)))
        yield from literal.value(tape, arguments)
        yield from tape.space()
        end = yield from tape.expect(",", "}")
        if end == ",":
            yield from tape.space()
            end = yield from tape.accept("}")
    arguments.end()
    yield from tape.space()
    yield from tape.accept(CLOSE)


def style(_template: str) -> Style:
    """A string in a list or an object is JSON. The model would write its own quotes there."""
    return Style(
        call=Span(f"{OPEN}call:{CALLED}{{", f"}}{CLOSE}"),
        members=Members(
            string=Span(f"{KEY}:{QUOTE}", QUOTE),
            other=Span(f"{KEY}:"),
            between=",",
            forbidden=(QUOTE,),
        ),
        trigger=OPEN,
        reasoning=(Span(f"{THINKING}\n", THOUGHT),),
        forbidden=(OPEN,),
    )


GEMMA = Family(
    name="gemma",
    run=run,
    style=style,
    template=((OPEN,),),
    markers=(OPEN, CLOSE, "<|channel>", THOUGHT, QUOTE),
    opens=(THINKING,),
    reasoning=(THOUGHT,),
)
