"""What no product code may do, whatever the reason."""

import ast
import tomllib

import pytest
from packaging.requirements import Requirement

from tests.structure import ROOT, imports, modules

TOPS = ("engine_worker", "gpufc", "supervisor")
MODULES = [(name, path) for top in TOPS for name, path in modules(top)]
UNSAFE = {"pickle", "cPickle", "shelve", "marshal", "dill", "cloudpickle", "joblib", "diskcache"}
"""They run code that the data names."""

FIXED = {"aiohttp": "3.14.3", "jinja2": "3.1.5"}
"""The last release of each with a known hole (safety notes of their projects)."""


@pytest.mark.parametrize("top", TOPS)
def test_nothing_unpickles(top: str) -> None:
    for name, path in modules(top):
        used = {imported.partition(".")[0] for imported in imports(path)}
        assert not used & UNSAFE, name


def test_nothing_relies_on_assert_or_runs_text() -> None:
    for name, path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Assert), f"{name}:{node.lineno} vanishes under -O"
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Name):
                assert called.id not in {"eval", "exec", "__import__"}, f"{name}:{called.lineno}"


def test_no_wait_swallows_a_cancellation() -> None:
    """Python 3.11's `asyncio.wait_for` returns as if nothing had been cancelled when what it waits
    for comes in the same moment. A task that waits in a loop then never ends."""
    for name, path in MODULES:
        assert "asyncio.wait_for(" not in path.read_text(), f"{name}: use asyncio.timeout"


def test_libraries_with_known_holes_are_not_installed_with_this_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(map(Requirement, project["dependencies"]))
    for requirement in wanted:
        if requirement.name.lower() in FIXED:
            assert FIXED[requirement.name.lower()] not in requirement.specifier, requirement
    assert FIXED.keys() <= {requirement.name.lower() for requirement in wanted}
