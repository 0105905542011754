"""The README's generated blocks: lines between two marks, read and replaced. Pure."""

from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
END = "<!-- end -->\n"


class Block(Struct, frozen=True, kw_only=True):
    """The lines between the mark that names `holds` and `writer`, and the next `END`."""

    holds: str
    writer: str

    @property
    def begin(self) -> str:
        """The mark above the block."""
        return f"<!-- {self.holds}: written by {self.writer} -->\n"

    def inside(self, document: str) -> str:
        """The block's lines; empty where there are no marks."""
        return document.partition(self.begin)[2].partition(END)[0]

    def replaced(self, document: str, lines: str) -> str:
        """The document with these lines between the marks. Raises `ValueError` without marks."""
        before, begin, rest = document.partition(self.begin)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ValueError(f"the document has no marks for {self.holds}")
        return before + begin + lines + end + after
