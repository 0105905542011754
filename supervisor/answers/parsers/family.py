"""The port of the families: what a family's parser is given, and how it is run."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from msgspec import Struct

from gpufc.protocol import FinishReason
from supervisor.answers.parser import NewCounting
from supervisor.answers.parsers.answer import Answer
from supervisor.answers.parsers.tape import Markers, Steps, Tape
from supervisor.answers.parts import Ended, Part
from supervisor.answers.style import Style

Schema = Mapping[str, object]
"""The JSON schema of a tool's parameters."""


class Setup(Struct, frozen=True):
    """What the request tells a parser. `inside`: the prompt has opened the reasoning."""

    tools: bool = False
    schemas: Mapping[str, Schema] = {}
    inside: bool = False


THINKING, THOUGHT = ("<think>",), ("</think>",)
"""How most models begin and end their reasoning."""

Run = Callable[[Tape, Answer, Setup], Steps[None]]
"""Reads a whole text: returns at its end."""


class Family(Struct, frozen=True):
    """One format of answers.

    - `template`: alternatives; the family is a chat template's if all texts of one are in it.
    - `markers`: the tokens that the worker must spell in the text although they are control tokens.
    - `opens`: a prompt that ends with one of these has opened the reasoning.
    - `reasoning`: a chat template without any of these is of a model that does not reason.
    - `style`: how a model with this chat template writes what the parser reads.
    """

    name: str
    run: Run
    style: Callable[[str], Style]
    template: tuple[tuple[str, ...], ...] = ()
    markers: tuple[str, ...] = ()
    opens: tuple[str, ...] = THINKING
    reasoning: tuple[str, ...] = (*THINKING, *THOUGHT)

    def matches(self, template: str) -> bool:
        return any(all(text in template for text in texts) for texts in self.template)

    def starts_inside(self, prompt: str) -> bool:
        """Whether the model goes on with reasoning after this prompt."""
        return prompt.rstrip().endswith(self.opens)

    def reasons(self, template: str) -> bool:
        return any(text in template for text in self.reasoning)

    def new_parser(self, setup: Setup) -> NewCounting:
        return partial(Incremental, self.run, setup)


class Incremental:
    """Runs a family's steps. Implements `supervisor.answers.parser.Counting`."""

    __slots__ = ("_answer", "_steps", "_tape")

    def __init__(self, run: Run, setup: Setup) -> None:
        self._tape = Tape()
        self._answer = Answer(self._tape, setup.inside)
        self._steps = run(self._tape, self._answer, setup)
        next(self._steps)

    @property
    def n_calls(self) -> int:
        return self._answer.n_calls

    def feed(self, text: str) -> Sequence[Part]:
        if not text:
            return ()
        self._tape.add(text)
        next(self._steps)
        return self._answer.taken()

    def end(self, reason: FinishReason) -> Sequence[Part]:
        self._tape.reason = reason
        for _ in self._steps:
            raise RuntimeError("a parser waits for text after the end")
        self._answer.end()
        return (*self._answer.taken(), Ended(reason, self._answer.n_calls))


class Prose:
    """Reads the text between calls: the answer, and reasoning between `opens` and `closes`.

    `dropped` markers are no part of the text. A call in the reasoning ends it, if `in_reasoning`.
    Reasoning begins before the answer's first word or after a call, and `anywhere` if so told:
    elsewhere `<think>` is a word of the answer. With `after_reasoning` the end of the reasoning is
    returned like a marker, since a call without one may follow.
    """

    def __init__(
        self,
        calls: Sequence[str],
        opens: Sequence[str] = THINKING,
        closes: Sequence[str] = THOUGHT,
        *,
        dropped: Sequence[str] = (),
        in_reasoning: bool = True,
        anywhere: bool = False,
        after_reasoning: bool = False,
    ) -> None:
        self._opens = frozenset(opens)
        self._closes = frozenset(closes)
        self._dropped = frozenset(dropped)
        self._thoughts = frozenset((*opens, *closes, *dropped))
        self._in_reasoning = in_reasoning
        self._anywhere = anywhere
        self._after_reasoning = after_reasoning
        self._with_calls = Markers(*opens, *closes, *dropped, *calls)
        self._without = Markers(*opens, *closes, *dropped)

    def next_call(self, tape: Tape, answer: Answer, tools: bool) -> Steps[str | None]:
        """Read up to the next marker of a call and past it; None at the end."""
        while True:
            calls = tools and (self._in_reasoning or not answer.inside)
            markers = self._with_calls if calls else self._without
            marker = yield from tape.until(markers, answer.say)
            is_early = self._anywhere or not answer.said
            if marker in self._opens and is_early:
                answer.think(True)
            elif marker in self._closes and (answer.inside or is_early):
                answer.think(False)
                if self._after_reasoning:
                    return marker
            elif marker is None or marker not in self._thoughts:
                return marker
            elif marker not in self._dropped:
                answer.say(marker)
