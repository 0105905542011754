"""The parts that a family's parser makes, with the rules that all families share.

- White space around a block of reasoning and around calls is no part of the answer.
- The parts of a call are held until its raw text exceeds `HELD` characters or it is whole. A short
  call is thus all or nothing: a malformed one becomes text, and one that a limit cuts is left out.
  A longer call streams its arguments from then on.
"""

import json

from gpufc.protocol import FinishReason
from supervisor.answers.parsers.tape import Cut, Malformed, Steps, Tape
from supervisor.answers.parts import (
    Part,
    Reasoning,
    Text,
    ToolCallArguments,
    ToolCallBegun,
)

HELD = 512
"""Longer than most calls, and short against the arguments that a client wants streamed."""


class Answer:
    """Gathers one choice's parts. At most one call is open.

    `inside` tells whether text that is no call is reasoning. `said` tells whether the answer has
    text since its beginning or its last call.
    """

    __slots__ = (
        "_gathered",
        "_id",
        "_name",
        "_pending",
        "_sent",
        "_spaces",
        "_tape",
        "_trim",
        "inside",
        "n_calls",
        "said",
    )

    def __init__(self, tape: Tape, inside: bool) -> None:
        self.inside = inside
        self.n_calls = 0
        self.said = False
        self._tape = tape
        self._gathered: list[Part] = []
        self._spaces: list[str] = []  # white space that is dropped unless something follows
        self._trim = inside  # whether white space at this place has nothing before it
        self._name: str | None = None
        self._id: str | None = None
        self._pending: list[str] = []  # arguments of the open call, not sent
        self._sent = False

    def taken(self) -> list[Part]:
        """The parts since the last call of this."""
        parts, self._gathered = self._gathered, []
        return parts

    def say(self, text: str) -> None:
        """The next text that is no call: of the answer, or of the reasoning."""
        if not text:
            return
        if text.isspace():
            self._spaces.append(text)
            return
        if self._trim:
            text = text.lstrip()
            self._trim = False
        elif self._spaces:
            text = "".join((*self._spaces, text))
        self._spaces.clear()
        body = text.rstrip()
        if len(body) < len(text):
            self._spaces.append(text[len(body) :])
        self._gathered.append(Reasoning(body) if self.inside else Text(body))
        self.said = not self.inside

    def think(self, inside: bool) -> None:
        """Reasoning begins or ends here."""
        if inside != self.inside or inside:
            self._spaces.clear()
            self._trim = True
        self.inside = inside

    def open(self, marker: str) -> None:
        """A call begins with this marker, which has just been read."""
        self._tape.keep(marker)
        self._name = self._id = None
        self._pending = []
        self._sent = False

    def name(self, name: str, id: str | None = None) -> None:
        self._name, self._id = name, id
        self._send_if_long()

    def argue(self, text: str) -> None:
        """The next piece of the open call's arguments."""
        if not text:
            return
        if self._sent:
            self._gathered.append(ToolCallArguments(self.n_calls, text))
        else:
            self._pending.append(text)
            self._send_if_long()

    def close(self) -> bool:
        """The open call is whole. False if its arguments are no object: it became text."""
        if not self._sent and not self._is_whole():
            self.refuse()
            return False
        self._finish()
        return True

    def refuse(self) -> None:
        """The open call is malformed: it is text after all, unless parts of it are sent."""
        if self._sent:
            self._finish()
            return
        raw = self._tape.kept()
        self._tape.release()
        self.say(raw)

    def cut(self) -> None:
        """The text ended in the open call."""
        self._tape.at = len(self._tape.text)
        is_short = self._tape.n_kept <= HELD
        if self._sent or self._tape.reason is FinishReason.STOP or not is_short:
            self.refuse()
        else:
            self._tape.release()

    def end(self) -> None:
        """No text follows. White space after the last word is kept in an answer without calls."""
        spaces = "".join(self._spaces)
        if spaces and not (self._trim or self.inside or self.n_calls):
            self._gathered.append(Text(spaces))

    def _is_whole(self) -> bool:
        if not self._name:
            return False
        try:
            return not self._pending or isinstance(json.loads("".join(self._pending)), dict)
        except (ValueError, RecursionError):
            return False

    def _send_if_long(self) -> None:
        if self._name and self._pending and self._tape.n_kept > HELD:
            self._send()

    def _send(self) -> None:
        self._gathered.append(ToolCallBegun(self.n_calls, self._name or "", self._id))
        self._gathered.append(ToolCallArguments(self.n_calls, "".join(self._pending) or "{}"))
        self._sent = True
        self._tape.release()

    def _finish(self) -> None:
        if not self._sent:
            self._send()
        self.n_calls += 1
        self._sent = self.said = False
        self.think(False)


def attempt(steps: Steps[None], answer: Answer) -> Steps[bool]:
    """Read the open call and close it. False if it was none, or not whole."""
    try:
        yield from steps
    except Malformed:
        answer.refuse()
        return False
    except Cut:
        answer.cut()
        return False
    return answer.close()


def closing(tape: Tape, answer: Answer, *markers: str) -> Steps[str]:
    """Read what follows a call: white space and one of these markers. Empty if none follows."""
    spaces = yield from tape.space()
    marker = yield from tape.accept(*markers)
    if not marker:
        answer.say(spaces)
    return marker
