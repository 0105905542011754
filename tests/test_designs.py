"""Each design names the modules beside it, and no module that is gone."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
UNNAMED = ("__init__", "__main__", "test_", "conftest")
NAME = re.compile(r"`([\w./]+)`")


def _tracked(pattern: str) -> list[Path]:
    command = ["git", "ls-files", "-z", pattern]
    listed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


DESIGNS = _tracked("*DESIGN.md")


def _modules(folder: Path) -> set[str]:
    stems = {path.stem for path in folder.glob("*.py")}
    return {stem for stem in stems if not stem.startswith(UNNAMED)}


def _tables(text: str) -> set[str]:
    """The names in the first column of the tables of modules and packages."""
    found: set[str] = set()
    is_inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            is_inside = False
        elif line.startswith(("| module |", "| package |")):
            is_inside = True
        elif is_inside:
            found.update(NAME.findall(line.split("|")[1]))
    return found


@pytest.mark.parametrize("design", DESIGNS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_design_names_the_modules_beside_it(design: Path) -> None:
    named = set(re.findall(r"\w+", design.read_text()))
    assert sorted(_modules(design.parent) - named) == []


@pytest.mark.parametrize("design", DESIGNS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_design_names_no_module_that_is_gone(design: Path) -> None:
    known = {path.stem for path in _tracked("*.py")}
    known |= {parent.name for path in _tracked("*.py") for parent in path.parents}
    named = {name.removesuffix(".py") for name in _tables(design.read_text())}
    names = {re.split(r"[./]", name)[-1] for name in named}
    assert sorted(names - known) == []
