"""Imports: the two processes are apart, rooms have an order, decisions are pure."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests import structure
from tests.structure import (
    IMPURE_IMPORTS,
    PURE,
    arrows,
    cycle,
    floors,
    imports,
    modules,
    room_of,
)

TOPS = ["gpufc", "engine_worker", "supervisor"]

ENGINE = {"llama_cpp", "numpy"}

ON_DEMAND = {"nats", "pluggy", "prometheus_client"}
"""Libraries of the front that cost memory and that not every front needs."""

PURE_FRONT_MODULES = [
    "supervisor.fleet.condition",
    "supervisor.fleet.lifecycle",
    "supervisor.fleet.replacement_rules",
    "supervisor.fleet.restart_policy",
    "supervisor.fleet.states",
    "supervisor.fleet.step_rate",
    "supervisor.fleet.trial",
    "supervisor.fleet.watchdog",
    "supervisor.fleet.crash_record",
    "supervisor.dispatch.admission",
    "supervisor.dispatch.turns",
    "supervisor.dispatch.stream_log",
    "supervisor.dispatch.recovery",
    "supervisor.dispatch.suspects",
    "supervisor.dispatch.durable",
    "supervisor.dispatch.conversion",
    "supervisor.dispatch.timings",
    "supervisor.fabric.answer",
    "supervisor.fabric.codec",
    "supervisor.fabric.devices",
    "supervisor.fabric.messages",
    "supervisor.fabric.reporting",
    "supervisor.fabric.session",
    "supervisor.downloads.wanted",
    "supervisor.plugins.requests",
    "supervisor.plugins.structs",
]


def top_levels(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def packages_imported(top: str) -> dict[str, set[str]]:
    found = {module: top_levels(path) for module, path in modules(top)}
    if not found:
        pytest.fail(f"no modules in {top}")
    return found


def test_the_vocabulary_imports_only_the_standard_library_and_msgspec() -> None:
    allowed = set(sys.stdlib_module_names) | {"msgspec", "gpufc"}
    for module, packages in packages_imported("gpufc").items():
        assert packages <= allowed, module


def test_the_worker_never_imports_the_front_or_a_network_library() -> None:
    for module, packages in packages_imported("engine_worker").items():
        assert not packages & {"supervisor", "aiohttp", "socket", "asyncio", "click"}, module


def test_only_the_llama_backend_and_the_probe_import_llama_cpp() -> None:
    users = {
        module
        for module, packages in packages_imported("engine_worker").items()
        if "llama_cpp" in packages
    }
    assert users <= {
        "engine_worker.backend.llama.backend",
        "engine_worker.backend.llama.vocabulary_process",
        "engine_worker.probe",
    }
    assert "engine_worker.backend.llama.backend" in users


def test_the_front_never_imports_the_worker_or_its_libraries() -> None:
    for module, packages in packages_imported("supervisor").items():
        assert not packages & ({"engine_worker"} | ENGINE), module


@pytest.mark.parametrize("top", TOPS)
def test_every_module_lies_in_a_room_that_has_a_floor(top: str) -> None:
    homeless = [path for module, path in modules(top) if room_of(module, floors()) is None]
    # a package of packages is a docstring
    assert [path for path in homeless if len(ast.parse(path.read_text()).body) > 1] == []


@pytest.mark.parametrize("top", TOPS)
def test_rooms_import_only_from_floors_below_them(top: str) -> None:
    known = floors()
    upward = {
        arrow: uses for arrow, uses in arrows(top).items() if known[arrow[0]] >= known[arrow[1]]
    }
    assert not upward


def test_no_modules_import_each_other_in_a_ring() -> None:
    assert cycle(TOPS) == []


def test_a_ring_of_modules_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "ROOT", tmp_path)
    (tmp_path / "top").mkdir()
    for name, used in (("a", "top.b"), ("b", "top.c"), ("c", "top.b")):
        (tmp_path / "top" / f"{name}.py").write_text(f"from {used} import x\n")
    assert cycle(["top"]) == ["top.b", "top.c", "top.b"]


def test_every_room_with_a_floor_exists() -> None:
    known = {module for top in TOPS for module, _ in modules(top)}
    assert [room for room in floors() if room not in known] == []


@pytest.mark.parametrize("room", PURE)
def test_packages_that_decide_import_no_clock_no_sockets_and_no_threads(room: str) -> None:
    checked = 0
    for module, path in modules(room.split(".")[0]):
        if room_of(module, [room]) and module not in PURE[room]:
            checked += 1
            assert not top_levels(path) & IMPURE_IMPORTS, module
    assert checked
    for module in PURE[room]:
        assert module in dict(modules(room.split(".")[0])), f"{module} is no exception any more"


@pytest.mark.parametrize("module", PURE_FRONT_MODULES)
def test_decisions_import_no_clock_no_sockets_and_no_threads(module: str) -> None:
    assert not top_levels(dict(modules("supervisor"))[module]) & IMPURE_IMPORTS


def test_only_the_store_imports_the_client_of_nats() -> None:
    users = {
        module for module, packages in packages_imported("supervisor").items() if "nats" in packages
    }
    assert users == {"supervisor.cells.nats_store"}


def loaded_with(module: str) -> set[str]:
    """All modules of a process that has imported this one."""
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(result.stdout.split())


def test_a_starting_worker_leaves_templates_to_their_process() -> None:
    found = loaded_with("engine_worker.worker")
    assert "llguidance" in found
    assert "jinja2" not in found


def test_a_starting_front_has_loaded_neither_an_engine_nor_what_it_may_not_need() -> None:
    found = loaded_with("supervisor.app")
    loaded = {name.split(".")[0] for name in found}
    assert "aiohttp" in loaded
    assert not loaded & (ENGINE | ON_DEMAND)
    rooms = {
        *("supervisor.cells", "supervisor.cluster", "supervisor.downloads", "supervisor.fabric"),
        *("supervisor.plugins", "supervisor.remote"),
    }
    assert not rooms & found
