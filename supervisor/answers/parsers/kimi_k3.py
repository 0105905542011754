"""Kimi K3: elements between `<|open|>NAME …<|sep|>` and `<|close|>NAME<|sep|>`."""

import re
from html import unescape

from gpufc.answer_format import KEY, NUMBER, TYPE, Members, Span
from supervisor.answers.parsers.answer import Answer, attempt
from supervisor.answers.parsers.family import Family, Prose, Setup
from supervisor.answers.parsers.tagged import Closers, argument
from supervisor.answers.parsers.tape import Steps, Tape
from supervisor.answers.parsers.typed import Arguments
from supervisor.answers.style import NAME, Style

OPEN, CLOSE, SEP = "<|open|>", "<|close|>", "<|sep|>"
THINKING, THOUGHT = f"{OPEN}think{SEP}", f"{CLOSE}think{SEP}"
CALL, END_CALL = f"{OPEN}call ", f"{CLOSE}call{SEP}"
ARGUMENT, END_ARGUMENT = f"{OPEN}argument ", f"{CLOSE}argument{SEP}"
RESPONSE = f"{OPEN}response{SEP}"
AROUND = (
    f"{OPEN}tools{SEP}",
    *(f"{CLOSE}{name}{SEP}" for name in ("response", "tools", "message")),
)

PROSE = Prose([CALL], [THINKING], [THOUGHT, RESPONSE], dropped=AROUND, anywhere=True)
ATTRIBUTE = re.compile(r"\w*")
QUOTED = re.compile(r"[^\"<]*")
CLOSERS = Closers({END_ARGUMENT: (ARGUMENT, END_CALL)})


def run(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    while marker := (yield from PROSE.next_call(tape, answer, setup.tools)):
        answer.open(marker)
        yield from attempt(_call(tape, answer), answer)


def _call(tape: Tape, answer: Answer) -> Steps[None]:
    attributes = yield from _attributes(tape)
    answer.name((yield from tape.something(attributes.get("tool", ""))))
    arguments = Arguments(answer)
    yield from tape.space()
    while (yield from tape.expect(ARGUMENT, END_CALL)) == ARGUMENT:
        attributes = yield from _attributes(tape)
        arguments.key((yield from tape.something(attributes.get("key", ""))))
        kind = attributes.get("type")
        types = None if kind is None else frozenset([kind])
        yield from argument(tape, CLOSERS, arguments, types)
    arguments.end()


def _attributes(tape: Tape) -> Steps[dict[str, str]]:
    """Read `key="value" …<|sep|>`."""
    found: dict[str, str] = {}
    while not (yield from tape.accept(SEP)):
        yield from tape.space()
        name = yield from tape.something((yield from tape.word(ATTRIBUTE)))
        yield from tape.expect('="')
        found[name] = unescape((yield from tape.word(QUOTED)))
        yield from tape.expect('"')
    return found


def style(_template: str) -> Style:
    """Calls come after an empty response. An answer of text or calls has no single beginning."""
    begin = f'{ARGUMENT}key="{KEY}" type="'
    return Style(
        call=Span(f'{CALL}tool="{NAME}" index="{NUMBER}"{SEP}', END_CALL),
        section=Span(f"{RESPONSE}{CLOSE}response{SEP}{OPEN}tools{SEP}", f"{CLOSE}tools{SEP}"),
        members=Members(
            string=Span(f'{begin}string"{SEP}', END_ARGUMENT),
            other=Span(f'{begin}{TYPE}"{SEP}', END_ARGUMENT),
            forbidden=(OPEN, CLOSE, SEP),
        ),
        reasoning=(Span(THINKING, THOUGHT),),
        gaps=False,
        text=None,
        forbidden=(OPEN, CLOSE, SEP),
    )


KIMI_K3 = Family(
    name="kimi-k3",
    run=run,
    style=style,
    template=((OPEN, CLOSE, SEP),),
    markers=(OPEN, CLOSE, SEP),
    opens=(THINKING,),
    reasoning=(THINKING, OPEN),
)
