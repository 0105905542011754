"""Kimi K2: `<|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{…}<|tool_call_end|>`.

The model's own id of a call is the whole `functions.NAME:0`. Text between the calls of a section
is no part of the answer.
"""

import re

from gpufc.answer_format import NUMBER, Span
from supervisor.answers.parsers import jsontext
from supervisor.answers.parsers.answer import Answer, attempt
from supervisor.answers.parsers.family import Family, Prose, Setup
from supervisor.answers.parsers.tape import Malformed, Markers, Steps, Tape
from supervisor.answers.style import NAME as CALLED
from supervisor.answers.style import Style

SECTION, END_SECTION = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
CALL, END_CALL = "<|tool_call_begin|>", "<|tool_call_end|>"
ARGUMENTS = "<|tool_call_argument_begin|>"

PROSE = Prose([SECTION, CALL])
IN_SECTION = Markers(CALL, END_SECTION)
ID = re.compile(r"[^<>{}\"\s]*")
NAME = re.compile(r"(?:functions\.)?(.+?)(?::\d+)?")


def run(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    while marker := (yield from PROSE.next_call(tape, answer, setup.tools)):
        in_section = marker == SECTION
        if in_section:
            marker = yield from tape.until(IN_SECTION, _nothing)
        while marker == CALL:
            answer.open(CALL)
            whole = yield from attempt(_call(tape, answer), answer)
            marker = ""
            if whole and in_section:
                marker = yield from tape.until(IN_SECTION, _nothing)


def _call(tape: Tape, answer: Answer) -> Steps[None]:
    yield from tape.space()
    id = yield from tape.something((yield from tape.word(ID)))
    yield from tape.space()
    yield from tape.expect(ARGUMENTS)
    name = NAME.fullmatch(id)
    if name is None:
        raise Malformed
    answer.name(name[1], id)
    yield from tape.space()
    yield from jsontext.arguments(tape, answer)
    yield from tape.space()
    yield from tape.accept(END_CALL)


def _nothing(_text: str) -> None:
    pass


def style(_template: str) -> Style:
    return Style(
        call=Span(f"{CALL}functions.{CALLED}:{NUMBER}{ARGUMENTS}", END_CALL),
        section=Span(SECTION, END_SECTION),
        trigger=SECTION,
        forbidden=(SECTION, CALL),
    )


KIMI = Family(
    name="kimi",
    run=run,
    style=style,
    template=((SECTION,),),
    markers=(SECTION, END_SECTION, CALL, END_CALL, ARGUMENTS, "<think>", "</think>"),
)
