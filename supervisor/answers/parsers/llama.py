"""Llama 3: a call is a JSON object. Llama 4: a list of Python calls, `[f(a=1), g()]`.

Calls begin the answer, or follow `<|python_tag|>` or `<|python_start|>`.
"""

import re

from gpufc.answer_format import KEY as MEMBER
from gpufc.answer_format import Members, Span, Text
from supervisor.answers.parsers import jsontext, literal
from supervisor.answers.parsers.answer import Answer, attempt, closing
from supervisor.answers.parsers.family import THOUGHT, Family, Prose, Setup
from supervisor.answers.parsers.tape import Steps, Tape
from supervisor.answers.parsers.typed import Arguments
from supervisor.answers.style import NAME as CALLED
from supervisor.answers.style import Style

TAG, START, END = "<|python_tag|>", "<|python_start|>", "<|python_end|>"

PROSE = Prose([TAG, START], dropped=[END], after_reasoning=True)
NAME = re.compile(r"[\w.-]*")
KEY = re.compile(r"\w*")


def run(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    if setup.tools and not answer.inside:
        yield from _bare_calls(tape, answer, setup)
    while marker := (yield from PROSE.next_call(tape, answer, setup.tools)):
        if marker not in THOUGHT:
            answer.open(marker)
            yield from _calls(tape, answer, setup)
        elif setup.tools:
            yield from _bare_calls(tape, answer, setup)


def _bare_calls(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    """Calls at the beginning of the answer, without a marker."""
    spaces = yield from tape.space()
    if (yield from tape.peek()) in ("{", "["):
        answer.open(spaces)
        yield from _calls(tape, answer, setup)
    else:
        answer.say(spaces)


def _calls(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    """Read the open call and those that follow it, in either format."""
    yield from tape.space()
    whole = True
    in_list = yield from tape.accept("[")
    separators = (",", "]") if in_list else (";", ",")
    while whole:
        yield from tape.space()
        is_json = (yield from tape.peek()) == "{"
        read = jsontext.call(tape, answer, setup.schemas) if is_json else _python(tape, answer)
        whole = yield from attempt(read, answer)
        if whole:
            separator = yield from closing(tape, answer, *separators)
            if separator in ("", "]"):
                return
            answer.open(separator)


def _python(tape: Tape, answer: Answer) -> Steps[None]:
    """Read a Python call with named arguments."""
    name = yield from tape.something((yield from tape.word(NAME)))
    yield from tape.expect("(")
    answer.name(name)
    arguments = Arguments(answer)
    yield from tape.space()
    end = yield from tape.accept(")")
    while not end:
        key = yield from tape.something((yield from tape.word(KEY)))
        yield from tape.space()
        yield from tape.expect("=")
        yield from tape.space()
        arguments.key(key)
        yield from literal.value(tape, arguments)
        yield from tape.space()
        end = yield from tape.expect(",", ")")
        if end == ",":
            yield from tape.space()
            end = yield from tape.accept(")")
    arguments.end()


def style(template: str) -> Style:
    """Values are JSON in both formats, which the parser takes for Python's as well."""
    if '"parameters"' in template or START not in template:
        return Style(
            call=Span(f'{{"name": "{CALLED}", "parameters": ', "}"),
            between="; ",
            text=Text(not_first=jsontext.BARE_CALL),
            forbidden=(TAG, START),
        )
    member = Span(f"{MEMBER}=")
    return Style(
        call=Span(f"{CALLED}(", ")"),
        section=Span("[", "]"),
        between=", ",
        members=Members(member, member, between=", ", raw=False, keys=r"[A-Za-z_][A-Za-z_0-9]*"),
        text=Text(not_first=rf"{jsontext.BARE_CALL}|\s*\[\s*[\w.-]+\("),
        forbidden=(TAG, START),
    )


LLAMA = Family(
    name="llama",
    run=run,
    style=style,
    template=(("<|start_header_id|>", '"parameters"'), (TAG,), ("<|header_start|>",)),
    markers=(TAG, START, END, "<think>", "</think>"),
)
