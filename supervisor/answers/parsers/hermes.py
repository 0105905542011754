"""Hermes, Qwen 2.5 and Qwen 3: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`."""

from supervisor.answers.parsers import jsontext
from supervisor.answers.parsers.answer import Answer, attempt, closing
from supervisor.answers.parsers.family import Family, Prose, Setup
from supervisor.answers.parsers.tape import Steps, Tape

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


HERMES = Family(
    name="hermes",
    run=run,
    template=((OPEN,),),
    markers=(OPEN, CLOSE, "<think>", "</think>"),
)
