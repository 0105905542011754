# ruff: noqa: RUF001, RUF002  (the model's own tokens have these letters)
"""DeepSeek V3.2, V4 and V4.1: `<｜DSML｜invoke name="NAME">` with `<｜DSML｜parameter …>` blocks.

V4.1 writes a blank before each tag's name.
"""

import re

from gpufc.answer_format import KEY, Members, Span
from supervisor.answers.parsers.answer import Answer, attempt, closing
from supervisor.answers.parsers.family import Family, Prose, Setup
from supervisor.answers.parsers.tagged import Closers, argument
from supervisor.answers.parsers.tape import Steps, Tape
from supervisor.answers.parsers.typed import Arguments, parameter_types
from supervisor.answers.style import NAME as CALLED
from supervisor.answers.style import Style

DSML = "｜DSML｜"
SECTIONS = tuple(f"<{DSML}{name}>" for name in ("function_calls", "tool_calls", " calls"))
END_SECTIONS = tuple(f"</{tag[1:]}" for tag in SECTIONS)
INVOKE = (f"<{DSML}invoke", f"<{DSML} invoke")
END_INVOKE = (f"</{DSML}invoke>", f"</{DSML} invoke>")
PARAMETER = (f"<{DSML}parameter", f"<{DSML} parameter")
END_PARAMETER = (f"</{DSML}parameter>", f"</{DSML} parameter>")

PROSE = Prose([*SECTIONS, *INVOKE])
QUOTED = re.compile(r"[^\"\n]*")
CLOSERS = Closers(dict.fromkeys(END_PARAMETER, (*PARAMETER, *END_INVOKE)))
STRING, OTHER = '" string="true">', '" string="false">'


def run(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    while marker := (yield from PROSE.next_call(tape, answer, setup.tools)):
        answer.open(marker)
        while (yield from attempt(_call(tape, answer, setup, marker), answer)):
            marker = yield from closing(tape, answer, *INVOKE, *END_SECTIONS)
            if marker not in INVOKE:
                break
            answer.open(marker)


def _call(tape: Tape, answer: Answer, setup: Setup, marker: str) -> Steps[None]:
    if marker in SECTIONS:
        yield from tape.space()
        yield from tape.expect(*INVOKE)
    name = yield from _name(tape)
    answer.name(name)
    arguments = Arguments(answer)
    if (yield from tape.expect('">', '"/>')) == '">':
        yield from tape.space()
        while (yield from tape.expect(*PARAMETER, *END_INVOKE)) in PARAMETER:
            key = yield from _name(tape)
            kind = yield from tape.expect(STRING, OTHER, '">')
            arguments.key(key)
            types = parameter_types(setup, name, key) if kind == '">' else None
            types = frozenset(["string"]) if kind == STRING else types
            yield from argument(tape, CLOSERS, arguments, types)
    arguments.end()


def _name(tape: Tape) -> Steps[str]:
    yield from tape.expect(' name="')
    return (yield from tape.something((yield from tape.word(QUOTED))))


def style(template: str) -> Style:
    section = next((tag for tag in SECTIONS if tag in template), SECTIONS[0])
    blank = " " if section == SECTIONS[-1] else ""
    invoke, parameter = f"<{DSML}{blank}invoke", f"<{DSML}{blank}parameter"
    end_invoke, end_parameter = f"</{DSML}{blank}invoke>", f"</{DSML}{blank}parameter>"
    key = f'{parameter} name="{KEY}'
    return Style(
        call=Span(f'{invoke} name="{CALLED}">\n', f"{end_invoke}\n"),
        section=Span(f"{section}\n", f"</{section[1:]}"),
        members=Members(
            string=Span(f"{key}{STRING}", f"{end_parameter}\n"),
            other=Span(f"{key}{OTHER}", f"{end_parameter}\n"),
            forbidden=(DSML,),
        ),
        trigger=section,
        forbidden=(DSML,),
    )


DEEPSEEK_DSML = Family(
    name="deepseek-dsml",
    run=run,
    style=style,
    template=((DSML,),),
    markers=(DSML, "<think>", "</think>"),
)
