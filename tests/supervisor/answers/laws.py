"""The laws of parsers, and texts to try them with."""

from hypothesis import strategies as st

from gpufc.protocol import FinishReason
from supervisor.answers.parser import NewParser
from supervisor.answers.parts import Ended, Part, Piece, joined

STOP = FinishReason.STOP

WORDS = ["a", " b", "<", ">", "<think>", "</think>", "<call ", "f>", "</call>", "{}", "é", "<th"]

texts = st.lists(st.sampled_from(WORDS), max_size=30).map("".join)


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    """A text in pieces, empty ones too."""
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


cut_texts = texts.flatmap(cut)


def parts_of(new_parser: NewParser, pieces: list[str]) -> list[Part]:
    """The parts for a reader of a log, piece by piece."""
    parser = new_parser()
    return [*(part for piece in pieces for part in parser.feed(piece)), *parser.end(STOP)]


def check(new_parser: NewParser, pieces: list[str]) -> None:
    """The parts do not depend on where the text was cut, none is empty, and one end is the last."""
    parts = parts_of(new_parser, pieces)
    assert joined(parts) == joined(parts_of(new_parser, ["".join(pieces)]))
    assert all(part.text for part in parts if isinstance(part, Piece))
    assert [isinstance(part, Ended) for part in parts].index(True) == len(parts) - 1
