"""The five figures that the README shows: which runs bring them, and how they get there."""

from collections.abc import Iterable
from pathlib import Path

from tests.readme import README, Block

RESULTS = Path(__file__).with_name("RESULTS.md")
RUNS = ("--kills 150", "--returns 10", "--real 2", "--hangs 2", "--poison 3")
"""Some minutes in all. Each is a command line of `scripts/chaos`, with `SEED`."""
SEED = "--seed 1"
BLOCK = Block(holds="headline figures", writer="scripts/chaos --headline")
HEAD = "| measured | result |\n| --- | --- |\n"


def figures(readme: str) -> list[str]:
    """The rows between the README's marks, as Markdown lines."""
    return BLOCK.inside(readme).removeprefix(HEAD).splitlines()


def replaced(readme: str, rows: Iterable[tuple[str, str]]) -> str:
    """The README with these rows between its marks. Raises `ValueError` without marks."""
    lines = "".join(f"| {measured} | {result} |\n" for measured, result in rows)
    return BLOCK.replaced(readme, HEAD + lines)


def write(rows: Iterable[tuple[str, str]]) -> None:
    """Write these rows to the README. Raises `OSError`, and `ValueError` without marks."""
    README.write_text(replaced(README.read_text(), rows))
