"""GLM 4.5 on: `<tool_call>NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value></tool_call>`."""

import re

from gpufc.answer_format import KEY as MEMBER
from gpufc.answer_format import Members, Span
from supervisor.answers.parsers.answer import Answer, attempt
from supervisor.answers.parsers.family import Family, Prose, Setup
from supervisor.answers.parsers.tagged import Closers, argument
from supervisor.answers.parsers.tape import Steps, Tape
from supervisor.answers.parsers.typed import Arguments, parameter_types
from supervisor.answers.style import NAME as CALLED
from supervisor.answers.style import Style

OPEN, CLOSE = "<tool_call>", "</tool_call>"
KEY, END_KEY = "<arg_key>", "</arg_key>"
VALUE, END_VALUE = "<arg_value>", "</arg_value>"

PROSE = Prose([OPEN])
NAME = re.compile(r"[^<>{}\"\s]*")
UP_TO_TAG = re.compile(r"[^<\n]*")
CLOSERS = Closers({END_VALUE: (KEY, CLOSE), CLOSE: (OPEN,)})


def run(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    while marker := (yield from PROSE.next_call(tape, answer, setup.tools)):
        answer.open(marker)
        yield from attempt(_call(tape, answer, setup), answer)


def _call(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    yield from tape.space()
    name = yield from tape.something((yield from tape.word(NAME)))
    yield from tape.space()
    tag = yield from tape.expect(KEY, CLOSE)
    answer.name(name)
    arguments = Arguments(answer)
    while tag == KEY:
        key = (yield from tape.word(UP_TO_TAG)).strip()
        yield from tape.expect(END_KEY)
        yield from tape.space()
        yield from tape.expect(VALUE)
        arguments.key(key)
        types = parameter_types(setup, name, key)
        tag = yield from argument(tape, CLOSERS, arguments, types)
        if tag == END_VALUE:
            tag = yield from tape.expect(KEY, CLOSE)
    arguments.end()


def style(template: str) -> Style:
    """GLM 4.5 begins a line for each tag, later models do not."""
    line = "\n" if f"{END_KEY}\n{VALUE}" in template else ""
    around = Span(f"{KEY}{MEMBER}{END_KEY}{line}{VALUE}", f"{END_VALUE}{line}")
    return Style(
        call=Span(f"{OPEN}{CALLED}{line}", CLOSE),
        between=line,
        members=Members(around, around, forbidden=(END_VALUE, CLOSE)),
        trigger=OPEN,
        forbidden=(OPEN,),
    )


GLM = Family(
    name="glm",
    run=run,
    style=style,
    template=((KEY,),),
    markers=(OPEN, CLOSE, KEY, END_KEY, VALUE, END_VALUE, "<think>", "</think>"),
)
