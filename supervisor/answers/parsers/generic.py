"""Any other template: a call is a JSON object or a list of them, with `name` and `arguments`.

It stands at the beginning of the answer, in a block of code or after `<tool_call>`. All else is
text.
"""

from supervisor.answers.parsers import jsontext
from supervisor.answers.parsers.answer import Answer
from supervisor.answers.parsers.family import Family, Prose, Setup, attempt
from supervisor.answers.parsers.tape import Steps, Tape

FENCES = ("```json", "```tool_call", "```tool_code")
TAGS = ("<tool_call>", "<function_call>")

PROSE = Prose([*FENCES, *TAGS])


def run(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    if setup.tools and not answer.inside:
        yield from bare_calls(tape, answer)
    while marker := (yield from PROSE.next_call(tape, answer, setup.tools)):
        yield from calls(tape, answer, marker)
        yield from tape.space()
        yield from tape.accept("```", "</tool_call>", "</function_call>")


def bare_calls(tape: Tape, answer: Answer) -> Steps[None]:
    """Calls at the very beginning, without a marker."""
    spaces = yield from tape.space()
    if (yield from tape.peek()) in ("{", "["):
        yield from calls(tape, answer, spaces)
    else:
        answer.say(spaces)


def calls(tape: Tape, answer: Answer, marker: str) -> Steps[None]:
    """One call, or a list of them. What is none becomes text."""
    answer.open(marker)
    yield from tape.space()
    if not (yield from tape.accept("[")):
        yield from attempt(jsontext.call(tape, answer), answer)
        return
    yield from tape.space()
    while (yield from attempt(jsontext.call(tape, answer), answer)):
        yield from tape.space()
        separator = yield from tape.accept(",", "]")
        if separator != ",":
            return
        answer.open(separator)
        yield from tape.space()


GENERIC = Family(name="json", run=run, markers=("<think>", "</think>"))
