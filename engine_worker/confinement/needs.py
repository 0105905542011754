"""The files and devices that a worker needs, as Landlock's rules.

Pure but for the look at which files there are. Everything else is out of reach: keys, home folders,
other models, the runtime folder, `/etc/shadow`, disks.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import gpufc
from engine_worker.confinement.landlock import DEVICE, LIST, READ, WRITE, Right, Rule
from gpufc.adapters import adapter_files
from gpufc.config import ModelConfig

SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/sys", "/proc"),
    *("/nix/store", "/gnu/store", "/run/opengl-driver", "/run/nvidia", "/var/lib/dcgm-exporter"),
)
"""Programs, libraries, and what drivers read about the machine. Landlock itself keeps other
processes' memory and variables in /proc out of reach."""

ETC = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload", "alternatives", "os-release"),
    *("localtime", "timezone", "locale.alias", "nsswitch.conf", "passwd", "group", "machine-id"),
    *("OpenCL", "vulkan", "glvnd", "nvidia", "nvidia-container-runtime", "amd", "ssl/openssl.cnf"),
    *("pki/tls/openssl.cnf", "crypto-policies", "drirc", "modprobe.d"),
)
"""What libraries and drivers read there."""

DEVICES = (
    *("null", "zero", "full", "random", "urandom"),
    *("nvidia*", "nvhost*", "nvmap", "nvgpu", "nvsciipc", "dri", "kfd", "dxg", "accel", "mali*"),
    *("dma_heap", "udmabuf", "kgsl-3d0", "adsprpc*", "fastrpc*"),
)
"""Below /dev, by patterns. Not among them: disks, memory, terminals."""

_LIBRARY_VARIABLES = (
    *("LD_LIBRARY_PATH", "LLAMA_CPP_LIB_PATH", "CUDA_HOME", "CUDA_PATH", "ROCM_PATH", "HIP_PATH"),
    *("VK_ICD_FILENAMES", "VK_DRIVER_FILES", "VK_ADD_DRIVER_FILES", "ONEAPI_ROOT"),
    *("GGML_BACKEND_PATH", "VK_LAYER_PATH", "OCL_ICD_VENDORS"),
)
_CACHE_VARIABLES = ("CUDA_CACHE_PATH", "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
_CACHES = (
    *(".nv", ".cache/nvidia", ".cache/mesa_shader_cache", ".cache/mesa_shader_cache_db"),
    *(".cache/radv_builtin_shaders64", ".cache/comgr", ".cache/AMD", ".AMD", ".cache/neo"),
    *(".cache/neo_compiler_cache", ".cache/libsycl_cache", ".cache/clcache"),
)
"""Where drivers keep compiled kernels, below the home folder."""

_PART = re.compile(r"(?P<stem>.*)-\d{5}-of-(?P<count>\d{5})\.gguf")


def rules(
    model: ModelConfig | None, environ: Mapping[str, str], loaded: Iterable[str]
) -> set[Rule]:
    """The rules for a worker of `model`; without one, for a process that reads no model.

    `loaded` are the files that are mapped already: drivers' libraries load others beside them.
    """
    loaded = list(loaded)
    found = {*_programs(loaded), *_variables(environ)}
    if model is not None:
        found |= {*_devices(), *map(_readable, model_files(model))}
        found |= set(_caches(environ)) if has_gpu() else set()
        if has_gpu() or any("libiomp" in path or "libomp" in path for path in loaded):
            # drivers share memory there, and some versions of these libraries end without it
            found.add(Rule("/dev/shm", WRITE))  # noqa: S108
    home = Path(environ.get("HOME", "/")).resolve()
    return {rule for rule in found if rule.path in SYSTEM or not _holds(rule, home)}


def _holds(rule: Rule, home: Path) -> bool:
    """Whether a rule opens the home folder: a library or a module may lie in it."""
    return rule.rights != LIST and home.is_relative_to(Path(rule.path).resolve())


GPU_LIBRARIES = ("cuda", "hip", "vulkan", "sycl", "opencl", "musa", "cann", "openvino", "virtgpu")
_GPU_NODES = ("nvidiactl", "kfd", "dxg", "dri/renderD*", "nvgpu", "nvhost-gpu", "davinci*")


def may_use_gpu(model: ModelConfig, loaded: Iterable[str], dev: Path = Path("/dev")) -> bool:
    """Whether llama.cpp is compiled for GPUs, one is here, and the model may be put on it."""
    names = [Path(path).name for path in loaded]
    compiled = any(f"ggml-{kind}" in name for name in names for kind in GPU_LIBRARIES)
    return compiled and model.n_gpu_layers > 0 and has_gpu(dev)


def has_gpu(dev: Path = Path("/dev")) -> bool:
    """Whether a GPU's driver is here."""
    return any(next(dev.glob(pattern), None) for pattern in _GPU_NODES)


def model_files(model: ModelConfig) -> Iterator[str]:
    """The files that a worker of this model opens: the parts of a split one, too."""
    for given in model.weight_files:
        yield from _parts(Path(given))
    yield from (file.path for file in adapter_files(model.adapters))
    if model.chat_template is not None and Path(model.chat_template).is_file():
        yield model.chat_template


def _parts(first: Path) -> Iterator[str]:
    match = _PART.fullmatch(first.name)
    count = int(match["count"]) if match is not None else 1
    if match is None or count > 1000:
        yield str(first)
        return
    for number in range(1, count + 1):
        yield str(first.with_name(f"{match['stem']}-{number:05}-of-{match['count']}.gguf"))


def _programs(loaded: Iterable[str]) -> Iterator[Rule]:
    yield from map(_readable, SYSTEM)
    if os.geteuid():  # for the kernel's choice in want of memory; for root, /proc/sys is there too
        yield Rule("/proc", READ | Right.WRITE_FILE)
    yield from (_readable(f"/etc/{name}") for name in ETC)
    root = Path(gpufc.__file__).parent.parent
    folders = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path} - {"", str(root)}
    yield from map(_readable, folders)
    yield Rule(str(root), LIST)  # the import system lists it
    yield from (_readable(str(root / name)) for name in ("gpufc", "engine_worker"))
    yield from {_readable(str(Path(path).parent)) for path in loaded}


def _variables(environ: Mapping[str, str]) -> Iterator[Rule]:
    for name in _LIBRARY_VARIABLES:
        yield from (_readable(path) for path in environ.get(name, "").split(os.pathsep) if path)


def _devices() -> Iterator[Rule]:
    for pattern in DEVICES:
        yield from (Rule(str(path), DEVICE) for path in Path("/dev").glob(pattern))


def _caches(environ: Mapping[str, str]) -> Iterator[Rule]:
    """What drivers of GPUs write. Other programs of the user use them, too."""
    yield from (Rule(environ[name], WRITE) for name in _CACHE_VARIABLES if environ.get(name))
    home = environ.get("HOME")
    if home:
        yield from (Rule(f"{home}/{name}", WRITE) for name in _CACHES)


def _readable(path: str) -> Rule:
    return Rule(path, READ)
