"""gpt-oss's harmony: messages of `<|channel|>CHANNEL<|message|>TEXT<|end|>`.

The channel `analysis` is reasoning, `final` and `commentary` are the answer. A message to a
recipient, `to=functions.NAME`, is a call. A message to a tool that was not offered is left out.
"""

import re

from gpufc.answer_format import Span, Text
from gpufc.protocol import FinishReason
from supervisor.answers.parsers import jsontext
from supervisor.answers.parsers.answer import Answer, attempt
from supervisor.answers.parsers.family import Family, Setup
from supervisor.answers.parsers.tagged import Closers
from supervisor.answers.parsers.tape import Cut, Markers, Steps, Take, Tape
from supervisor.answers.style import NAME, Style

START, CHANNEL, MESSAGE, CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")

HEADER_ENDS = Markers(MESSAGE, START, *ENDS)
BODY_ENDS = Closers(dict.fromkeys(ENDS, (START, CHANNEL)))
RECIPIENT = re.compile(r"\bto=([^\s<]+)")
FUNCTIONS = "functions."


def run(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    try:
        if not (yield from tape.ahead(START, CHANNEL, " to=", MESSAGE)):
            answer.think(False)
            yield from BODY_ENDS.read(tape, answer.say)
        while True:
            yield from _message(tape, answer, setup)
    except Cut:
        return


def _message(tape: Tape, answer: Answer, setup: Setup) -> Steps[None]:
    """Read one message, from its header to the marker that ends it."""
    pieces: list[str] = []
    end = yield from tape.until(HEADER_ENDS, pieces.append)
    header = "".join(pieces)
    if end is None:
        if tape.reason is FinishReason.STOP:
            answer.say(header)
        raise Cut
    if end != MESSAGE:
        return
    role, *channels = header.split(CHANNEL)
    channel = channels[-1].strip() if channels else ""
    recipient = RECIPIENT.search(channel) or RECIPIENT.search(role)
    answer.think(channel.startswith("analysis"))
    take: Take = answer.say
    if recipient is not None and setup.tools:
        name = recipient[1].removeprefix(FUNCTIONS)
        if recipient[1].startswith(FUNCTIONS) or name in setup.schemas:
            answer.open(header + MESSAGE)
            if (yield from attempt(_call(tape, answer, name), answer)):
                return
        else:
            take = _nothing
    yield from BODY_ENDS.read(tape, take)


def _call(tape: Tape, answer: Answer, name: str) -> Steps[None]:
    answer.name(name)
    yield from tape.space()
    yield from jsontext.arguments(tape, answer)
    yield from tape.space()
    yield from tape.accept(*ENDS)


def _nothing(_text: str) -> None:
    pass


def style(_template: str) -> Style:
    next_message = f"<|end|>{START}assistant"
    return Style(
        call=Span(f"{CHANNEL}commentary to={FUNCTIONS}{NAME} {CONSTRAIN}json{MESSAGE}"),
        one_call=True,
        reasoning=(Span(f"{CHANNEL}analysis{MESSAGE}", next_message),),
        preambles=(Span(f"{CHANNEL}commentary{MESSAGE}", next_message),),
        gaps=False,
        text=Text(Span(f"{CHANNEL}final{MESSAGE}")),
        forbidden=(START, CHANNEL, MESSAGE, *ENDS),
    )


HARMONY = Family(
    name="harmony",
    run=run,
    style=style,
    template=((CHANNEL, MESSAGE),),
    markers=(START, CHANNEL, MESSAGE, CONSTRAIN, *ENDS),
    opens=(),
    reasoning=(CHANNEL,),
)
