"""The project's rooms and arrows: packages, and the imports between them.

    python -m tests.structure           rooms, floors and arrows as they are now

`FLOORS` is the order in which packages may use each other: a module imports from its own package
and from floors below it. `tests/test_imports.py` holds every module to that.
"""

import ast
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent

FLOORS: tuple[tuple[str, ...], ...] = (
    # the front, from the top down
    ("supervisor.handover.__main__",),
    ("supervisor.cli",),
    ("supervisor.app",),
    ("supervisor.optional", "supervisor.readiness"),
    ("supervisor.operations",),
    ("supervisor.handover",),
    ("supervisor.http.routes", "supervisor.control", "supervisor.fabric"),
    ("supervisor.http.description",),
    (
        *("supervisor.http.anthropic", "supervisor.http.dashboard"),
        *("supervisor.http.llama_server", "supervisor.http.ollama"),
        *("supervisor.http.openai", "supervisor.http.openapi", "supervisor.http.responses"),
        *("supervisor.http.rerank", "supervisor.http.route", "supervisor.http.service"),
    ),
    ("supervisor.http.generation",),
    ("supervisor.http.edge", "supervisor.plugins"),
    (
        *("supervisor.access", "supervisor.cells", "supervisor.metrics", "supervisor.reload"),
        *("supervisor.roster", "supervisor.tracing"),
    ),
    ("supervisor.dispatch", "supervisor.remote"),
    ("supervisor.worker_host",),
    ("supervisor.fleet",),
    ("supervisor.answers",),
    ("supervisor.cluster", "supervisor.residency", "supervisor.routing"),
    (
        *("supervisor.bench", "supervisor.demo_model", "supervisor.devices"),
        *("supervisor.downloads", "supervisor.placer", "supervisor.runtime_dir"),
    ),
    ("supervisor.log_files",),
    (
        *("supervisor.addresses", "supervisor.descriptors", "supervisor.front_process"),
        *(
            "supervisor.offline",
            "supervisor.outlet",
            "supervisor.program",
            "supervisor.socket_reader",
        ),
        *("supervisor.standard_streams", "supervisor.systemd"),
    ),
    ("supervisor.log_rotation", "supervisor.looks"),
    # the worker
    ("engine_worker.__main__",),
    ("engine_worker.worker",),
    ("engine_worker.probe", "engine_worker.reckon", "engine_worker.engine"),
    ("engine_worker.speculation", "engine_worker.embedding"),
    ("engine_worker.scheduling",),
    ("engine_worker.kv",),
    ("engine_worker.text",),
    ("engine_worker.sampling",),
    ("engine_worker.backend.llama", "engine_worker.backend.fake", "engine_worker.prompts"),
    ("engine_worker.constraints",),
    ("engine_worker.backend",),
    ("engine_worker.placement",),
    ("engine_worker.model_file",),
    ("engine_worker.threads",),
    (
        "engine_worker.channel",
        "engine_worker.confinement",
        "engine_worker.disposable",
        "engine_worker.host",
        "engine_worker.tuning",
    ),
    ("engine_worker.time_slice",),
    # both
    ("gpufc",),
)
"""From the top down. Packages on one floor do not import each other."""

PURE = {
    "engine_worker.scheduling": set(),
    "engine_worker.text": set(),
    "engine_worker.kv": {"engine_worker.kv.transfer", "engine_worker.kv.file"},
    "engine_worker.speculation": {"engine_worker.speculation.draft_model"},
    "engine_worker.embedding": set(),
    "engine_worker.placement": set(),
    "engine_worker.sampling": {"engine_worker.sampling.batch"},
    "supervisor.answers": set(),
    "supervisor.access": {"supervisor.access.store", "supervisor.access.ring"},
    "supervisor.metrics": set(),
    "supervisor.cells": {
        "supervisor.cells.cells",
        "supervisor.cells.nats_store",
        "supervisor.cells.turns",
        "supervisor.cells.watcher",
        "supervisor.cells.writer",
    },
    "supervisor.residency": {"supervisor.residency.store"},
    "supervisor.routing": set(),
    "supervisor.tracing": {"supervisor.tracing.export"},
}
"""Packages that decide and do nothing else, with the modules in them that are exceptions."""

IMPURE_IMPORTS = {
    "aiohttp",
    "asyncio",
    "llama_cpp",
    "multiprocessing",
    "os",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "time",
    "zmq",
}


def modules(top: str) -> Iterator[tuple[str, Path]]:
    """Every module below a top-level package: its dotted name, its file."""
    for path in sorted((ROOT / top).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


@cache
def imports(path: Path) -> tuple[str, ...]:
    """A file's imports, in dotted names: `from a import b` is `a.b`."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(found)


def room_of(name: str, rooms: Iterable[str]) -> str | None:
    """The room that a dotted name lies in: the longest one that it begins with."""
    found = [room for room in rooms if name == room or name.startswith(room + ".")]
    return max(found, key=len, default=None)


def floors() -> dict[str, int]:
    """Each room's floor; 0 is the top."""
    return {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def cycle(tops: Iterable[str]) -> list[str]:
    """Modules that import each other in a ring, the first one again at the end; else empty."""
    known = dict(entry for top in tops for entry in modules(top))
    uses = {
        module: {target for name in imports(path) if (target := room_of(name, known))} - {module}
        for module, path in known.items()
    }
    done: set[str] = set()

    def ring(module: str, above: tuple[str, ...]) -> list[str]:
        if module in above:
            return [*above[above.index(module) :], module]
        if module in done:
            return []
        found = next(
            (r for used in sorted(uses[module]) if (r := ring(used, (*above, module)))), []
        )
        done.add(module)
        return found

    return next((found for module in sorted(uses) if (found := ring(module, ()))), [])


def arrows(top: str) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Imports from room to room: (from, to) → the modules and names that make the arrow."""
    known = floors()
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for module, path in modules(top):
        source = room_of(module, known) or module
        for name in imports(path):
            target = room_of(name, known)
            if target is not None and target != source:
                found.setdefault((source, target), []).append((module, name))
    return found


def main() -> None:
    known = floors()
    for top in ("engine_worker", "supervisor", "gpufc"):
        rooms = {room_of(module, known) for module, _ in modules(top)} - {None}
        made = arrows(top)
        print(f"{top}: {len(rooms)} rooms, {len(made)} arrows")
        for (source, target), uses in sorted(made.items()):
            up = " UPWARD" if known.get(source, -1) >= known[target] else ""
            print(f"  {source} -> {target} ({len(uses)}){up}")


if __name__ == "__main__":
    sys.exit(main())
