"""How many KV cells there should be: arithmetic on what the model needs and the machine has.

A cell holds one token's keys and values in every layer. llama.cpp clears its whole KV buffer when
it is made, so cells cost time at every restart as well as memory.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from engine_worker.gguf_header import GgufHeader
from gpufc.amount import amount
from gpufc.errors import MemoryShort

GRANULE = 256
"""llama.cpp rounds a context up to this many cells."""
F16_BYTES = 2
CPU_TARGET_BYTES = 512 << 20
CPU_SHARE = 0.4
CPU_HARD_SHARE = 0.9
GPU_SHARE = 0.8


def round_up(n_cells: int) -> int:
    """The next multiple of `GRANULE`."""
    return -(-n_cells // GRANULE) * GRANULE


def bytes_per_cell(header: GgufHeader) -> int:
    """Bytes of one token's keys and values over all layers, at two bytes a number; at least 1.

    An upper bound for models that compress them (MLA) or keep none in some layers.
    """
    arch = header.architecture
    n_layers = min(header.number(f"{arch}.block_count"), 65_536)
    n_heads = max(max(header.per_layer(f"{arch}.attention.head_count", 1, 1), default=1), 1)
    kv_heads = header.per_layer(f"{arch}.attention.head_count_kv", n_layers, n_heads)
    head_dim = header.number(f"{arch}.embedding_length") // n_heads
    key = header.number(f"{arch}.attention.key_length", head_dim)
    value = header.number(f"{arch}.attention.value_length", head_dim)
    return max(1, sum(kv_heads[:n_layers]) * (key + value) * F16_BYTES)


GPU_RESERVE_BYTES = 512 * 1024 * 1024
"""Of device memory left alone: what the first steps allocate fails by ending the process."""


def fit_cells(
    *,
    n_ctx: int,
    n_running: int,
    cell_bytes: int,
    available_bytes: int,
    on_gpu: bool,
) -> int:
    """Cells of one cache for all sequences, a multiple of `GRANULE`, at least `n_ctx`.

    `n_running` sequences run at once; `available_bytes` is free memory where the cache will be,
    the model already loaded. Raises `MemoryShort` when not even one request's context fits.
    """
    wanted = n_ctx * n_running
    if on_gpu:
        require_fit(n_ctx, cell_bytes, int(available_bytes * GPU_SHARE), on_gpu=True)
        cells = min(wanted, int(available_bytes * GPU_SHARE) // cell_bytes)
    else:
        require_fit(n_ctx, cell_bytes, int(available_bytes * CPU_HARD_SHARE), on_gpu=False)
        generous = max(2 * n_ctx, CPU_TARGET_BYTES // cell_bytes)
        cells = min(wanted, generous, int(available_bytes * CPU_SHARE) // cell_bytes)
    return round_up(max(cells, n_ctx))


def require_fit(n_cells: int, cell_bytes: int, limit_bytes: int, *, on_gpu: bool) -> None:
    """Raises `MemoryShort`, with what to set, if `n_cells` take more than `limit_bytes`."""
    needed = n_cells * cell_bytes
    if needed <= limit_bytes:
        return
    place, advice = ("device", "n_ctx or n_gpu_layers") if on_gpu else ("host", "n_ctx or kv_cells")
    raise MemoryShort(
        f"a KV cache of {n_cells:,} cells needs {amount(needed)}, and {amount(limit_bytes)} of"
        f" {place} memory can be used for it; set a smaller {advice}",
        needed_bytes=needed,
        available_bytes=limit_bytes,
    )


def available_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of host memory that this process could still take: the system's, within cgroup v2's.

    What cannot be read does not limit; with nothing readable it is 1 GiB.
    """
    limits = [*_meminfo(proc), *_cgroup_rooms(proc, cgroups)]
    return max(0, min(limits)) if limits else 1 << 30


def _meminfo(proc: Path) -> Sequence[int]:
    for line in _read(proc / "meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split()[:1] and value.split()[0].isdigit():
            return [int(value.split()[0]) * 1024]
    return []


def _cgroup_folders(proc: Path, cgroups: Path) -> Sequence[Path]:
    """This process's cgroup and all above it: each of them may have a limit."""
    for line in _read(proc / "self" / "cgroup").splitlines():
        if line.startswith("0::"):
            folder = cgroups / line[3:].strip("/")
            within = [place for place in folder.parents if place.is_relative_to(cgroups)]
            return [folder, *within][:64]
    return [cgroups]


def _cgroup_rooms(proc: Path, cgroups: Path) -> Sequence[int]:
    rooms = []
    for folder in _cgroup_folders(proc, cgroups):
        limit, used = _read(folder / "memory.max").strip(), _read(folder / "memory.current").strip()
        if limit.isdigit() and used.isdigit():
            rooms.append(int(limit) - int(used) + _reclaimable(folder))
    return rooms


def _reclaimable(folder: Path) -> int:
    """Page cache counts as used, and goes when it is needed."""
    for line in _read(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file" and value.isdigit():
            return int(value)
    return 0


def usable_cores(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Physical cores that this process may run on, within cgroup v2's CPU quota; at least 1.

    Two hyperthreads of one core share its vector units: more threads than cores decode slower.
    """
    cpus = os.sched_getaffinity(0)
    cores = {_core_of(cpu) for cpu in cpus}
    n_cores = len(cores)
    for folder in _cgroup_folders(proc, cgroups):
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            n_cores = min(n_cores, -(-int(quota) // int(period)))
    return max(1, n_cores)


def _core_of(cpu: int) -> tuple[str, str]:
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    core = _read(topology / "core_id").strip()
    return _read(topology / "physical_package_id").strip(), core or f"cpu{cpu}"


def _read(path: Path) -> str:
    """At most 64 KiB of a small file's text; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(65_536).decode("ascii", "replace")
    except OSError:
        return ""
