"""Writes a Lark text in llguidance's dialect, rule by rule. Pure.

Some markers are control tokens of the model. Such a marker has no text in an answer, so that it
ends free text by itself. The rule `mark_N` stands for the control token N, which
`llg.with_tokens` defines.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine_worker.constraints.llg import JSON_LAYOUT
from gpufc.answer_format import NUMBER

ANY = r"/(.|\n)*/"
_DIGITS = "/[0-9]{1,3}/"


class Lark:
    """Gathers rules. `control` are the texts of the control tokens, by their numbers."""

    def __init__(self, control: Sequence[str]) -> None:
        self._marks = {text: f"mark_{number}" for number, text in enumerate(control)}
        pieces = sorted((*control, NUMBER), key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, pieces)))
        self._lines: list[str] = []
        self._names: dict[str, str] = {}

    def text(self, start: str) -> str:
        """The whole grammar."""
        return "\n".join((f"start: {start}", *self._lines)) + "\n"

    def rule(self, expression: str, *, is_lazy: bool = False) -> str:
        """The name of the rule for this expression. A lazy one ends as early as it can."""
        return self._named("lazy" if is_lazy else "rule", expression, "[lazy]" if is_lazy else "")

    def terminal(self, expression: str) -> str:
        """The name of the terminal for this expression: one lexeme."""
        return self._named("TERM", expression, "")

    def json(self, schema: Mapping[str, Any] | bool) -> str:
        """The name of the rule for a JSON value."""
        given = {} if schema is True else {"not": {}} if schema is False else schema
        return self.rule("%json " + json.dumps({**given, "x-guidance": JSON_LAYOUT}))

    def exact(self, text: str) -> str:
        """This text, with its control tokens; empty for the empty text."""
        found: list[str] = []
        at = 0
        for match in self._split.finditer(text):
            found.append(quoted(text[at : match.start()]))
            found.append(_DIGITS if match.group() == NUMBER else self._marks[match.group()])
            at = match.end()
        return " ".join(filter(None, (*found, quoted(text[at:]))))

    def controls(self, texts: Iterable[str]) -> list[str]:
        """The rules of all control tokens in these texts."""
        found = (match.group() for text in texts for match in self._split.finditer(text))
        return list(dict.fromkeys(self._marks[text] for text in found if text != NUMBER))

    def starts_with_control(self, text: str) -> bool:
        match = self._split.match(text)
        return match is not None and match.group() != NUMBER

    def until(self, end: str, pattern: str = ANY) -> str:
        """A text of this pattern up to the first `end`, and past it."""
        if self.starts_with_control(end):
            return f"{self.terminal(pattern)} {self.exact(end)}"
        match = self._split.search(end)
        literal = end if match is None else end[: match.start()]
        both = f"{self.terminal(pattern)} {quoted(literal)}"
        if match is not None and match.group() != NUMBER:  # the control token ends the text
            return f"{self.terminal(both)} {self.exact(end[len(literal) :])}"
        rest = self.exact(end[len(literal) :])
        return " ".join(filter(None, (self.rule(both, is_lazy=True), rest)))

    def _named(self, kind: str, expression: str, flag: str) -> str:
        key = f"{kind}{flag} {expression}"
        name = self._names.get(key)
        if name is None:
            name = self._names[key] = f"{kind}_{len(self._names)}"
            self._lines.append(f"{name}{flag}: {expression}")
        return name


def quoted(text: str) -> str:
    """A literal; empty for the empty text."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def escaped(text: str) -> str:
    """A text inside a regular expression between slashes."""
    return "".join(
        char if char.isalnum() and char.isascii() else rf"\x{{{ord(char):X}}}" for char in text
    )


def without(texts: Iterable[str], not_first: str = "") -> str:
    """The pattern of all texts in which none of these stands, and that do not begin so."""
    pattern = ANY
    if found := "|".join(escaped(text) for text in texts if text):
        pattern += rf" & ~/(.|\n)*({found})(.|\n)*/"
    if not_first:
        pattern += rf" & ~/({not_first})(.|\n)*/"
    return pattern


def any_of(texts: Iterable[str]) -> str:
    """The pattern of exactly these texts."""
    return f"/({'|'.join(map(escaped, texts))})/"


def one_of(options: Sequence[str]) -> str:
    """Alternatives, in brackets where there are several."""
    return options[0] if len(options) == 1 else f"({' | '.join(options)})"


def some(expression: str, least: int, most: int | None) -> str:
    """A repetition, possibly empty."""
    if most == 0:
        return ""
    if most is None and least in (0, 1):
        return f"({expression}){'*' if least == 0 else '+'}"
    return f"({expression}){{{least},{'' if most is None else most}}}"
