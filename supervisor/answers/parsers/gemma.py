"""Gemma 4: `<|tool_call>call:NAME{key:<|"|>text<|"|>,…}<tool_call|>`."""

import re

from supervisor.answers.parsers import literal
from supervisor.answers.parsers.answer import Answer, attempt
from supervisor.answers.parsers.family import Family, Prose, Setup
from supervisor.answers.parsers.tape import Steps, Tape
from supervisor.answers.parsers.typed import Arguments

OPEN, CLOSE = "<|tool_call>", "<tool_call|>"
THINKING, THOUGHT = "<|channel>thought", "<channel|>"

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


GEMMA = Family(
    name="gemma",
    run=run,
    template=((OPEN,),),
    markers=(OPEN, CLOSE, "<|channel>", THOUGHT, '<|"|>'),
    opens=(THINKING,),
    reasoning=(THOUGHT,),
)
