"""The README agrees with the code, as far as a machine can tell; documents link to files."""

import importlib.machinery
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from click import Context

from supervisor.cli import cli
from tests.chaos import headline

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = sorted(
    path
    for top in (ROOT, ROOT / "gpufc", ROOT / "engine_worker", ROOT / "supervisor", ROOT / "tests")
    for path in (top.glob("*.md") if top == ROOT else top.rglob("*.md"))
)


def load_script(name: str) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / "scripts" / name))
    spec = importlib.util.spec_from_loader(name, loader)
    if spec is None:
        raise AssertionError(name)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_the_configuration_table_is_the_codes() -> None:
    script = load_script("configuration_table")
    assert script.current() == script.table()


def test_every_command_is_in_the_readme() -> None:
    text = README.read_text()
    for command in cli.list_commands(Context(cli)):
        assert f"`{command}" in text, command


def test_every_folder_of_the_map_exists() -> None:
    section = README.read_text().split("## Map")[1].split("## ")[0]
    names = [name for name in section.split("`")[1::2] if name.endswith("/")]
    assert "engine_worker/sampling/" in names
    for name in names:
        in_tests = name in {"integration/", "e2e/", "chaos/"}
        folder = ROOT / "tests" / name if in_tests else ROOT / name
        assert folder.is_dir(), name


def test_it_is_read_in_minutes() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= 130
    assert [line for line in lines if len(line) > 100] == []


def test_each_headline_figure_stands_in_the_results_file() -> None:
    text = README.read_text()
    figures = headline.figures(text)
    assert len(figures) == len(headline.RUNS)
    results = headline.RESULTS.read_text().splitlines()
    assert [figure for figure in figures if figure not in results] == []
    assert f"({headline.RESULTS.relative_to(ROOT)})" in text


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text())
    files = [target for target in targets if "://" not in target]
    assert [target for target in files if not (path.parent / target).exists()] == []
