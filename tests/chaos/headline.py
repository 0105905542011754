"""The five figures that the README shows: which runs bring them, and how they get there."""

from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
RESULTS = Path(__file__).with_name("RESULTS.md")
RUNS = ("--kills 150", "--returns 10", "--real 2", "--hangs 2", "--poison 3")
"""Some minutes in all. Each is a command line of `scripts/chaos`, with `SEED`."""
SEED = "--seed 1"
BEGIN = "<!-- headline figures: written by scripts/chaos --headline -->\n"
END = "<!-- end -->\n"
HEAD = "| measured | result |\n| --- | --- |\n"


def figures(readme: str) -> list[str]:
    """The rows between the README's marks, as Markdown lines."""
    block = readme.partition(BEGIN)[2].partition(END)[0]
    return block.removeprefix(HEAD).splitlines()


def replaced(readme: str, rows: Iterable[tuple[str, str]]) -> str:
    """The README with these rows between its marks. Raises `ValueError` without marks."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the README has no marks for headline figures")
    lines = "".join(f"| {measured} | {result} |\n" for measured, result in rows)
    return before + BEGIN + HEAD + lines + END + after
