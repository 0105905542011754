"""The README says what the code does, where a machine can tell."""

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType

from click import Context

from supervisor.cli import cli

ROOT = Path(__file__).parent.parent


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
    text = (ROOT / "README.md").read_text()
    for command in cli.list_commands(Context(cli)):
        assert f"`{command}" in text, command


def test_every_folder_that_the_readme_names_exists() -> None:
    section = (ROOT / "README.md").read_text().split("## Where things are")[1].split("## ")[0]
    names = [name for name in section.split("`")[1::2] if name.endswith("/")]
    assert names
    for name in names:
        in_tests = name in {"integration/", "e2e/", "chaos/"}
        folder = ROOT / "tests" / name if in_tests else ROOT / name
        assert folder.is_dir(), name
