"""Any other template: a call is a JSON object or a list of them, with `name` and `arguments`.

It stands at the beginning of the answer, in a block of code or after `<tool_call>`. All else is
text.
"""

from gpufc.answer_format import Span, Text
from supervisor.answers.parsers import jsontext
from supervisor.answers.parsers.answer import Answer, closing
from supervisor.answers.parsers.family import THOUGHT, Family, Prose, Setup
from supervisor.answers.parsers.jsontext import BARE_CALL
from supervisor.answers.parsers.tape import Steps, Tape
from supervisor.answers.style import NAME, Style

FENCES = ("```json", "```tool_call", "```tool_code")
TAGS = ("<tool_call>", "<function_call>", "<|tool_call|>")
CLOSES = ("```", "</tool_call>", "</function_call>", "<|/tool_call|>")

PROSE = Prose([*FENCES, *TAGS], after_reasoning=True)


def run(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    if setup.tools and not answer.inside:
        yield from _bare_calls(tape, answer, setup)
    while marker := (yield from PROSE.next_call(tape, answer, setup.tools)):
        if marker in THOUGHT:
            if setup.tools:
                yield from _bare_calls(tape, answer, setup)
            continue
        answer.open(marker)
        yield from tape.space()
        if (yield from jsontext.calls(tape, answer, setup.schemas)):
            yield from closing(tape, answer, *CLOSES)


def _bare_calls(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    """Calls at the beginning of the answer, without a marker."""
    spaces = yield from tape.space()
    if (yield from tape.peek()) in ("{", "["):
        answer.open(spaces)
        yield from jsontext.calls(tape, answer, setup.schemas)
    else:
        answer.say(spaces)


def style(_template: str) -> Style:
    """The form that a template without tools is given (`engine_worker.prompts.folding`)."""
    return Style(
        call=Span('<tool_call>\n{"name": "' + NAME + '", "arguments": ', "}\n</tool_call>"),
        between="\n",
        trigger="<tool_call>",
        text=Text(not_first=BARE_CALL),
        forbidden=TAGS,
    )


GENERIC = Family(name="json", run=run, style=style, markers=("<think>", "</think>"))
