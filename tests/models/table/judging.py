"""Whether an answer is llama.cpp's own, and what a table says of it. Pure."""

from collections.abc import Sequence
from enum import StrEnum
from math import inf
from typing import NamedTuple, Protocol

from msgspec import Struct

ROUNDED = 2.0
"""A lead up to so many times the move that llama.cpp alone makes of it may be lost by rounding."""


class Moved(Protocol):
    """How far llama.cpp alone moves the lead of one token over another one behind some tokens, as
    it computes these in passes of several sizes."""

    def __call__(self, tokens: Sequence[int], first: int, second: int) -> float: ...


class Compared(Struct, frozen=True):
    """An answer beside that of llama.cpp alone. `n_equal` of `n_tokens` are the same. `lead` is
    that of llama.cpp's token where they part, and `moved` how far llama.cpp alone moves it."""

    n_equal: int
    n_tokens: int
    lead: float = 0.0
    moved: float = 0.0

    @property
    def is_equal(self) -> bool:
        return self.n_equal == self.n_tokens

    @property
    def is_explained(self) -> bool:
        """Whether the answers are equal, or part where llama.cpp's own rounding decides."""
        return self.is_equal or self.lead <= ROUNDED * self.moved


class Wanted(NamedTuple):
    """The answer of llama.cpp alone: its tokens, and the lead of each over the second-best one."""

    tokens: Sequence[int]
    leads: Sequence[float]


def compared(
    prompt: Sequence[int], tokens: Sequence[int], wanted: Wanted, moved: Moved
) -> Compared:
    """An answer beside that of llama.cpp alone, which may end earlier: with an end token."""
    n_wanted = len(wanted.tokens)
    at = _parting(tokens, wanted.tokens)
    if at < min(len(tokens), n_wanted):
        far = moved([*prompt, *wanted.tokens[:at]], wanted.tokens[at], tokens[at])
        return Compared(at, n_wanted, wanted.leads[at], far)
    n_ends = 1  # the engine may tell the end token, too
    if n_wanted <= len(tokens) <= n_wanted + n_ends:
        return Compared(n_wanted, n_wanted)
    return Compared(at, max(len(tokens), n_wanted), lead=inf)


def _parting(tokens: Sequence[int], others: Sequence[int]) -> int:
    """The number of tokens that are equal from the first one on."""
    pairs = enumerate(zip(tokens, others, strict=False))
    shorter = min(len(tokens), len(others))
    return next((at for at, (one, other) in pairs if one != other), shorter)


class Verdict(StrEnum):
    """As a table shows it. `ROUNDED`: answers part where llama.cpp's own rounding decides."""

    RIGHT = "✓"
    ROUNDED = "≈"
    WRONG = "WRONG:"


class Cell(NamedTuple):
    """A cell of the table: whether it is as promised, and its figures."""

    verdict: Verdict
    figures: str

    @property
    def text(self) -> str:
        return f"{self.verdict} {self.figures}"

    @property
    def is_right(self) -> bool:
        return self.verdict is not Verdict.WRONG

    def also(self, figures: str, *, is_right: bool = True) -> "Cell":
        """The same with more figures, which are as promised or not."""
        return Cell(self.verdict if is_right else Verdict.WRONG, f"{self.figures}, {figures}")


def cell(found: Sequence[Compared]) -> Cell:
    """Several answers as one cell: the tokens that are equal, and where answers part."""
    n_equal = sum(one.n_equal for one in found)
    parted = [one for one in found if not one.is_equal]
    if not parted:
        return Cell(Verdict.RIGHT, str(n_equal)) if n_equal else NO_TOKENS
    verdict = Verdict.ROUNDED if all(one.is_explained for one in parted) else Verdict.WRONG
    return Cell(verdict, f"{n_equal}; {', '.join(_place(one) for one in parted)}")


NO_TOKENS = Cell(Verdict.WRONG, "no tokens")
"""Answers without a token are equal and no evidence."""


def _place(one: Compared) -> str:
    if one.lead == inf:
        return f"equal up to {one.n_equal} of {one.n_tokens}, then ended"
    return f"parts after {one.n_equal}: lead {one.lead:.2g}, moved {one.moved:.2g}"


def repeated(tokens: Sequence[int], undisturbed: Sequence[int]) -> Cell:
    """An answer that has to repeat an undisturbed one to the last token."""
    if not undisturbed:
        return NO_TOKENS
    if list(tokens) == list(undisturbed):
        return Cell(Verdict.RIGHT, str(len(tokens)))
    at = _parting(tokens, undisturbed)
    return Cell(Verdict.WRONG, f"parts after {at} of {len(undisturbed)}")


def all_right(found: Sequence[Cell], things: str) -> Cell:
    """Cells of several things as one: their number, or the figures of those that are wrong."""
    wrong = [one.figures for one in found if not one.is_right]
    if wrong or not found:
        return Cell(Verdict.WRONG, "; ".join(wrong) or f"no {things}")
    return Cell(Verdict.RIGHT, f"{len(found)} {things}")
