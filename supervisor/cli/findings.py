"""The findings of `doctor`, each with its remedy. Pure apart from reading the system."""

import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from gpufc.config import Confinement, ModelConfig
from gpufc.errors import GpufcError
from supervisor import program
from supervisor.cli import errors
from supervisor.cli.terminal import amount

LEAST_PYTHON = (3, 11)
LEAST_FILES = 4096
LEAST_CONTEXT = 16
LEAST_DISK_BYTES = 100 << 20
GPU_SHARE = 0.8
CPU_SHARE = 0.9
REBUILD = "install --force-reinstall --no-cache-dir llama-cpp-python"
RUNNING = "running"
"""Subject of the finding that a front already runs."""


class Level(StrEnum):
    """`bad` prevents `start`; `warn` does not."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


class Finding(Struct, frozen=True):
    """`advice` is the remedy, or empty. `code` is the exit code that `start` would end with."""

    level: Level
    subject: str
    text: str
    advice: str = ""
    code: int = errors.COULD_NOT_START


def python() -> Finding:
    version = platform.python_version()
    if sys.version_info < LEAST_PYTHON:
        return Finding(Level.BAD, "Python", version, "gpufc needs 3.11 or later")
    return Finding(Level.OK, "Python", f"{version} at {sys.executable}")


def libraries(names: dict[str, str]) -> Iterator[Finding]:
    """`names` maps a distribution to the module that it brings."""
    import importlib.util
    from importlib import metadata

    missing = [name for name, module in names.items() if importlib.util.find_spec(module) is None]
    for name in missing:
        yield Finding(
            Level.BAD, "library", f"{name} is not installed", program.pip(f"install {name}")
        )
    if not missing:
        versions = []
        for name in names:
            try:
                versions.append(f"{name} {metadata.version(name)}")
            except metadata.PackageNotFoundError:
                versions.append(name)
        yield Finding(Level.OK, "libraries", ", ".join(versions))


def checked(subject: str, check: Callable[[], Any], fine: str) -> Finding:
    """Run a check of `preflight`. Its error becomes the finding and contains the remedy."""
    try:
        check()
    except GpufcError as err:
        return Finding(Level.BAD, subject, str(err), code=errors.exit_code(err))
    return Finding(Level.OK, subject, fine)


def running(status: Mapping[str, Any] | None, port: int) -> Finding | None:
    """A finding if a healthy front holds both the folder and the port; else None."""
    if status is None or status["front"]["condition"]["status"] != "ok":
        return None
    front = status["front"]
    if port and port not in (urlsplit(address).port for address in front["addresses"]):
        return None
    where = f"pid {front['pid']}, {', '.join(front['addresses'])}"
    return Finding(Level.OK, RUNNING, f"already running here: {where}; nothing to do")


def plugin(use: str, hooks: list[str], error: str) -> Finding:
    """A plugin with its hooks, or the error of its load."""
    if error:
        text = f"{use} cannot be loaded: {error}"
        return Finding(Level.BAD, "plugin", text, code=errors.USAGE)
    return Finding(Level.OK, "plugin", f"{use}: {', '.join(hooks)}")


def engine(report: dict[str, Any]) -> Iterator[Finding]:
    """llama.cpp's build and the devices that it finds."""
    if "error" in report:
        yield Finding(
            Level.BAD, "llama.cpp", report["error"],
            f"{program.pip(REBUILD)} compiles it for here",
        )  # fmt: skip
        return
    gpu = "with" if report["supports_gpu"] else "without"
    yield Finding(
        Level.OK, "llama.cpp", f"llama-cpp-python {report['version']}, compiled {gpu} GPU support"
    )
    if report["system_info"]:
        yield Finding(Level.OK, "compiled for", _features(report["system_info"]))
    for device in report["devices"]:
        memory = ""
        if device["memory_total_bytes"]:
            free, total = device["memory_free_bytes"], device["memory_total_bytes"]
            memory = f", {amount(free)} of {amount(total)} free"
        text = f"{device['name']} ({device['kind']}): {device['description']}{memory}"
        yield Finding(Level.OK, "ggml device", text)


def confinement(report: dict[str, Any], wanted: ModelConfig) -> Finding:
    """What would keep a worker from doing more than it must here."""
    if wanted.confinement is Confinement.OFF:
        return Finding(
            Level.WARN, "confinement", "is off: a hostile model could read and send what you can"
        )
    missing = "; ".join(f"{part}: {reason}" for part, reason in report["missing"].items())
    if not missing:
        return Finding(Level.OK, "confinement", f"of workers: {', '.join(report['in_force'])}")
    is_required = wanted.confinement is Confinement.REQUIRED
    return Finding(Level.BAD if is_required else Level.WARN, "confinement", f"lacks {missing}")


def _features(system_info: str) -> str:
    """Turn `CPU : AVX = 1 | FMA = 0 |` into `CPU: AVX`: the compiled-in features only."""
    names = []
    for part in system_info.split("|"):
        name, _, value = part.strip().rpartition(" = ")
        if name and value != "0":
            names.append((name if value == "1" else f"{name} {value}").replace(" : ", ": "))
    return ", ".join(names)


def gpu(devices: tuple[Any, ...], why_none: str, supports_gpu: bool) -> Iterator[Finding]:
    """Compare the drivers' GPUs with llama.cpp's build."""
    for device in devices:
        memory = amount(device.memory_total_bytes or 0)
        yield Finding(Level.OK, "GPU", f"{device.name}, {memory}")
    if devices and not supports_gpu:
        yield Finding(
            Level.WARN, "GPU", "llama.cpp was compiled without support for it: the CPU will do all",
            f"CMAKE_ARGS=-DGGML_CUDA=on {program.pip(REBUILD)}",
        )  # fmt: skip
    if not devices:
        yield Finding(Level.OK, "NVIDIA GPU", f"none: {why_none}")


def model(facts: dict[str, Any], n_ctx: int) -> Iterator[Finding]:
    """Report whether the file is whole and whether the model was trained for `n_ctx` tokens."""
    if "error" in facts:
        advice = "" if ";" in facts["error"] else "download it again, or name another one"
        yield Finding(Level.BAD, "model", facts["error"], advice, errors.USAGE)
        return
    name = facts["name"] or "unnamed"
    text = f"{name} ({facts['architecture']}), {amount(facts['file_bytes'])}, whole"
    yield Finding(Level.OK, "model", text)
    if error := facts.get("template_error"):
        yield Finding(
            Level.WARN, "chat template", f"chats will be refused: {error}",
            "GPUFC_CHAT_TEMPLATE names a Jinja file, or `chatml`",
        )  # fmt: skip
    trained = facts["n_ctx_train"]
    if trained and n_ctx > trained:
        yield Finding(
            Level.WARN, "context", f"n_ctx is {n_ctx:,}, but the model gives {trained:,} at most",
            f"--n-ctx {trained}",
        )  # fmt: skip


def memory(
    facts: dict[str, Any],
    report: dict[str, Any],
    wanted: ModelConfig,
    device_limit_bytes: int | None = None,
) -> Iterator[Finding]:
    """Estimate whether the weights and one request's context fit, with at most `device_limit_bytes`
    of each GPU. The worker measures it at load."""
    devices = report["llama_cpp"].get("devices", [])
    frees = [d["memory_free_bytes"] for d in devices if d["kind"] in ("gpu", "igpu")]
    if device_limit_bytes is not None:
        frees = [min(free, device_limit_bytes) for free in frees]
    device_free = sum(frees)
    on_gpu = bool(device_free) and wanted.n_gpu_layers > 0
    free = device_free * GPU_SHARE if on_gpu else report["available_bytes"] * CPU_SHARE
    n_ctx = min(wanted.n_ctx, facts["n_ctx_train"] or wanted.n_ctx)
    n_cells = max(n_ctx, wanted.kv_cells or 0)
    context = facts["cell_bytes"] * n_cells
    place = "GPU" if on_gpu else "host"
    text = (
        f"weights {amount(facts['file_bytes'])} and a context of {n_cells:,} tokens "
        f"{amount(context)}; {amount(free)} of {place} memory can be used"
    )
    if facts["file_bytes"] + context <= free:
        yield Finding(Level.OK, "memory", text)
        return
    room = int((free - facts["file_bytes"]) // facts["cell_bytes"])
    fitting = _less_context(n_ctx, n_cells, room // 256 * 256 or room)
    if on_gpu:
        kept = (
            f"{fitting} keeps them there" if room >= LEAST_CONTEXT else "a smaller model would fit"
        )
        advice = f"not all layers will be on the GPU; {kept}"
        yield Finding(Level.WARN, "memory", text, advice)
    elif room >= LEAST_CONTEXT:
        yield Finding(Level.BAD, "memory", text, fitting, errors.USAGE)
    else:
        advice = "a smaller model or a smaller quantization"
        yield Finding(Level.BAD, "memory", text, advice, errors.USAGE)


def _less_context(n_ctx: int, n_cells: int, room: int) -> str:
    """The setting for which `room` cells suffice. `n_cells` beyond `n_ctx` come from `kv_cells`."""
    if n_cells == n_ctx:
        return f"--n-ctx {room}"
    if room >= n_ctx:
        return f"GPUFC_KV_CELLS={room} at most; without it, as many as fit are taken"
    return f"--n-ctx {room}, and no GPUFC_KV_CELLS (kv_cells is {n_cells:,})"


def limits() -> Iterator[Finding]:
    """The system's limits on this process."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < LEAST_FILES:
        yield Finding(
            Level.WARN, "open files", f"limited to {files:,}: that many connections at most",
            f"ulimit -n {min(most, 65_536) if most > 0 else 65_536}",
        )  # fmt: skip
    else:
        yield Finding(Level.OK, "open files", f"up to {files:,}")
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        text = f"limited to {amount(address_space)}: mapping a larger model fails"
        yield Finding(Level.WARN, "address space", text, "ulimit -v unlimited")


def disk(folder: str) -> Finding:
    """Free disk space for sockets and logs."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free
    if free < LEAST_DISK_BYTES:
        text = f"{amount(free)} free at {folder}"
        return Finding(Level.WARN, "disk", text, "make room, or choose another --runtime-dir")
    return Finding(Level.OK, "disk", f"{amount(free)} free at {folder}")
