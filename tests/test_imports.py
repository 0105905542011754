"""Who may import what: the rules that keep the two processes apart and the decisions pure."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ENGINE = {"llama_cpp", "numpy"}
PURE_FORBIDS = {"asyncio", "zmq", "aiohttp", "time", "llama_cpp", "threading", "socket"}

PURE_MODULES = [
    "engine_worker/scheduling/scheduler.py",
    "engine_worker/text/sequence.py",
    "engine_worker/kv/prefix_cache.py",
    "engine_worker/kv/radix_tree.py",
    "engine_worker/speculation/prompt_lookup.py",
    "engine_worker/speculation/acceptance.py",
    "engine_worker/speculation/draft_lengths.py",
    "engine_worker/speculation/per_step.py",
    "engine_worker/scheduling/step_costs.py",
    "engine_worker/sampling/sampler.py",
    "engine_worker/sampling/chain.py",
    "engine_worker/sampling/adjustment.py",
    "engine_worker/sampling/candidates.py",
    "engine_worker/text/detokenizer.py",
    "engine_worker/text/stop_matcher.py",
    "engine_worker/placement/cells.py",
    "engine_worker/placement/footprint.py",
    "engine_worker/placement/layers.py",
    "supervisor/fleet/lifecycle.py",
    "supervisor/fleet/restart_policy.py",
    "supervisor/dispatch/admission.py",
    "supervisor/dispatch/turns.py",
    "supervisor/dispatch/stream_log.py",
    "supervisor/dispatch/router.py",
    "supervisor/dispatch/recovery.py",
    "supervisor/dispatch/suspects.py",
    "supervisor/dispatch/durable.py",
    "supervisor/fleet/watchdog.py",
    "supervisor/fleet/crash_record.py",
]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def packages_imported(folder: str) -> dict[str, set[str]]:
    files = sorted((ROOT / folder).rglob("*.py"))
    if not files:
        pytest.fail(f"no modules in {folder}")
    return {
        str(path.relative_to(ROOT)): {name.split(".")[0] for name in imported(path)}
        for path in files
    }


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
    assert users <= {"engine_worker/backend/llama/backend.py", "engine_worker/probe.py"}
    assert "engine_worker/backend/llama/backend.py" in users


def test_the_front_never_imports_the_worker_or_its_libraries() -> None:
    for module, packages in packages_imported("supervisor").items():
        assert not packages & ({"engine_worker"} | ENGINE), module


@pytest.mark.parametrize("module", PURE_MODULES)
def test_decisions_import_no_clock_no_sockets_and_no_threads(module: str) -> None:
    packages = {name.split(".")[0] for name in imported(ROOT / module)}
    assert not packages & PURE_FORBIDS


def test_a_running_front_has_loaded_neither_llama_cpp_nor_numpy() -> None:
    code = "import sys, supervisor.app; print(*sorted(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = {name.split(".")[0] for name in result.stdout.split()}
    assert "aiohttp" in loaded
    assert not loaded & ENGINE
