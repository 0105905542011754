"""Puts a worker's confinement in force."""

import ctypes
import logging
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine_worker.confinement import capabilities, landlock, needs, syscalls
from engine_worker.confinement.landlock import NotConfined
from gpufc import prctl
from gpufc.config import BackendKind, Confinement, ModelConfig
from gpufc.errors import ModelLoadError
from gpufc.facts import Confined

logger = logging.getLogger(__name__)

PRIVILEGES, CORE, CAPABILITIES = "privileges", "core files", "capabilities"
FILES, TCP, SYSCALLS = "files", "TCP", "system calls"

_NVIDIA = Path("/dev/nvidiactl")
_UVM = Path("/dev/nvidia-uvm")


def confine(model: ModelConfig) -> Confined:
    """Confine this process as `model.confinement` wants it. To be called by the only thread.

    Never raises: what is missing is reported. The scripted engine of the tests writes files that
    its prompts name, so `auto` leaves it its files.
    """
    basics = _attempt([(PRIVILEGES, prctl.gain_no_privileges), (CORE, _no_core)])
    if model.confinement is Confinement.OFF:
        return basics.joined(_without("confinement is off"))
    if model.backend is BackendKind.FAKE and model.confinement is Confinement.AUTO:
        return basics.joined(_without("the scripted engine"))
    _make_devices()
    confined = basics.joined(_restrict(model)).joined(_attempt(_LAST))
    for name, reason in confined.missing.items():
        logger.warning("not_confined part=%r reason=%r", name, reason)
    return confined


def require(model: ModelConfig, confined: Confined) -> None:
    """Raises `ModelLoadError` if the model needs a confinement that is not in force."""
    if model.confinement is Confinement.REQUIRED and confined.missing:
        reasons = "; ".join(f"{part}: {reason}" for part, reason in confined.missing.items())
        raise ModelLoadError(f"confinement is required, and not all of it is in force: {reasons}")


def confine_child() -> Confined:
    """Confine a process that computes for a worker and needs nothing but Python's libraries."""
    return _restrict(None).joined(_attempt(_LAST))


def abilities() -> Confined:
    """What would be in force here, for a display. Changes nothing."""
    abi = landlock.version()
    parts = [PRIVILEGES, CORE, CAPABILITIES]
    missing = {}
    for name, is_there, reason in (
        (FILES, abi > 0, _NO_LANDLOCK),
        (TCP, abi >= landlock.ABI_TCP, _OLD_LANDLOCK),
        (SYSCALLS, syscalls.is_available(), "libseccomp.so.2 is not installed"),
    ):
        if is_there:
            parts.append(name)
        else:
            missing[name] = reason
    return Confined(tuple(parts), missing)


_LAST = [(CAPABILITIES, capabilities.drop), (SYSCALLS, syscalls.refuse)]
_NO_LANDLOCK = "this kernel has no Landlock (Linux 5.13, `lsm=landlock`)"
_GPU = "a GPU's driver may need any; `confinement = required` holds it to those that are known"
_OLD_LANDLOCK = "this kernel's Landlock has no rules for TCP (Linux 6.7)"


def _restrict(model: ModelConfig | None) -> Confined:
    abi = landlock.version()
    if not abi:
        return Confined((), {FILES: _NO_LANDLOCK, TCP: _NO_LANDLOCK})
    n_threads = len(os.listdir("/proc/self/task"))
    loaded = _loaded()
    rules = None
    if not _leaves_files(model, loaded):
        rules = sorted(needs.rules(model, os.environ, loaded))
    confined = _attempt([(FILES, lambda: landlock.restrict(rules, abi))])
    if FILES not in confined.in_force:
        return confined
    if n_threads > 1 and abi < landlock.ABI_TSYNC:
        reason = f"{n_threads - 1} threads of libraries had begun before"
        return Confined((), {FILES: reason, TCP: reason})
    lacks = {} if rules is not None else {FILES: _GPU}
    lacks |= {} if abi >= landlock.ABI_TCP else {TCP: _OLD_LANDLOCK}
    return confined.joined(Confined((TCP,), lacks))


def _leaves_files(model: ModelConfig | None, loaded: set[str]) -> bool:
    """Whether files are left alone because a GPU's driver may need some that are not known here:
    without them, it would seem to be absent."""
    if model is None or model.confinement is Confinement.REQUIRED:
        return False
    return needs.may_use_gpu(model, loaded)


def _without(reason: str) -> Confined:
    return Confined((), dict.fromkeys((FILES, TCP, CAPABILITIES, SYSCALLS), reason))


def _attempt(parts: list[tuple[str, Callable[[], None]]]) -> Confined:
    in_force, missing = [], {}
    for name, put in parts:
        try:
            put()
        except (NotConfined, OSError, ValueError) as err:
            missing[name] = str(err)
        else:
            in_force.append(name)
    return Confined(tuple(in_force), missing)


def _no_core() -> None:
    """A core file would contain prompts."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _loaded() -> set[str]:
    """The files mapped into this process: programs and libraries."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {path for line in lines if (path := line[73:]).startswith("/") and ".so" in path}


def _make_devices() -> None:
    """Have NVIDIA's driver make its devices, which it does at the first use: a confined process
    could not."""
    if _NVIDIA.exists() and not _UVM.exists():
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libcuda.so.1").cuInit(0)
