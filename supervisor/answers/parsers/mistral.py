"""Mistral: `[TOOL_CALLS][{…}, …]` of old, and `[TOOL_CALLS]NAME[ARGS]{…}` since version 11."""

import re

from gpufc.answer_format import Span
from supervisor.answers.parsers import jsontext
from supervisor.answers.parsers.answer import Answer, attempt
from supervisor.answers.parsers.family import Family, Prose, Setup
from supervisor.answers.parsers.tape import Steps, Tape
from supervisor.answers.style import NAME as CALLED
from supervisor.answers.style import Style

OPEN, ID, ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"

THINKING = ("[THINK]", "<think>")
THOUGHT = ("[/THINK]", "</think>")
PROSE = Prose([OPEN], THINKING, THOUGHT, in_reasoning=False, anywhere=True)
NAME = re.compile(r"[^\[\]{}\"\s]*")


def run(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    while marker := (yield from PROSE.next_call(tape, answer, setup.tools)):
        answer.open(marker)
        yield from tape.space()
        if (yield from tape.peek()) in ("[", "{"):
            yield from jsontext.calls(tape, answer)
        else:
            yield from attempt(_call(tape, answer), answer)


def _call(tape: Tape, answer: Answer) -> Steps[None]:
    name = yield from tape.something((yield from tape.word(NAME)))
    yield from tape.space()
    tag = yield from tape.accept(ARGS, ID)
    id = None
    if tag == ID:
        id = (yield from tape.word(NAME)) or None
        yield from tape.expect(ARGS)
    answer.name(name, id)
    yield from tape.space()
    yield from jsontext.arguments(tape, answer)


def style(template: str) -> Style:
    if ARGS in template:
        call, section, between = Span(f"{OPEN}{CALLED}{ARGS}"), Span(), ""
    else:
        call = Span(f'{{"name": "{CALLED}", "arguments": ', "}")
        section, between = Span(f"{OPEN}[", "]"), ", "
    return Style(
        call=call,
        section=section,
        between=between,
        trigger=OPEN,
        reasoning=tuple(map(Span, THINKING, THOUGHT)),
        forbidden=(OPEN,),
    )


MISTRAL = Family(
    name="mistral",
    run=run,
    style=style,
    template=((OPEN,),),
    markers=(OPEN, ID, ARGS, *THINKING, *THOUGHT),
    opens=THINKING,
    reasoning=(*THINKING, *THOUGHT),
)
