"""The bounds of a constraint's text, checked before anything reads its meaning. Pure."""

import re

from gpufc.constraint import MAX_CONSTRAINT_BYTES, MAX_FORMAT_BYTES, Constraint, ConstraintKind
from gpufc.errors import InvalidGrammar

MAX_SCHEMA_DEPTH = 32
"""Levels of schemas within schemas."""
MAX_JSON_NESTING = 4 * MAX_SCHEMA_DEPTH
"""Brackets within brackets of a schema's text: a level of schema takes up to three."""
MAX_NESTING = 100
"""Brackets within brackets of a grammar or a regular expression."""
MAX_REPEATS = 10_000
"""The largest count of a repetition."""
MAX_CHOICES = 10_000

_COUNT = re.compile(r"\{\s*(\d*)\s*,?\s*(\d*)\s*\}")


def check_constraint(constraint: Constraint) -> None:
    """Raises `InvalidGrammar` for a text over the limit of its kind."""
    is_format = constraint.kind is ConstraintKind.ANSWER
    check_size(constraint.text, MAX_FORMAT_BYTES if is_format else MAX_CONSTRAINT_BYTES)


def check_size(text: str, most: int = MAX_CONSTRAINT_BYTES) -> None:
    """Raises `InvalidGrammar` for a text over the limit."""
    if len(text) > most or len(text.encode("utf-8", "replace")) > most:
        raise InvalidGrammar(f"a schema or grammar has at most {most} bytes")


def check_nesting(text: str, most: int, opening: str = "([{", closing: str = ")]}") -> None:
    """Raises `InvalidGrammar` for brackets nested too deep. Counts also those inside quotes."""
    depth = 0
    for character in text:
        if character in opening:
            depth += 1
            if depth > most:
                raise InvalidGrammar(f"at most {most} levels of nesting are supported")
        elif character in closing:
            depth = max(0, depth - 1)


def check_repeats(text: str) -> None:
    """Raises `InvalidGrammar` for a repetition such as `{1,1000000}`."""
    for match in _COUNT.finditer(text):
        for digits in match.groups():
            check_count(digits)


def check_count(digits: str) -> None:
    """Raises `InvalidGrammar` for one count over the limit."""
    if len(digits) > 9 or (digits and int(digits) > MAX_REPEATS):
        raise InvalidGrammar(f"a repetition of more than {MAX_REPEATS} is not supported")
