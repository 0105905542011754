"""GLM 4.5 on: `<tool_call>NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value></tool_call>`."""

import re

from supervisor.answers.parsers.answer import Answer, attempt
from supervisor.answers.parsers.family import Family, Prose, Setup
from supervisor.answers.parsers.tagged import Closers, argument
from supervisor.answers.parsers.tape import Steps, Tape
from supervisor.answers.parsers.typed import Arguments, parameter_types

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


GLM = Family(
    name="glm",
    run=run,
    template=((KEY,),),
    markers=(OPEN, CLOSE, KEY, END_KEY, VALUE, END_VALUE, "<think>", "</think>"),
)
