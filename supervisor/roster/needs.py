"""What each model needs: what its loads took on this machine, or else a reckoning by its file."""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gpufc.config import BackendKind, KvUnified, ModelConfig, Spread
from gpufc.facts import ModelFacts
from gpufc.reckoning import Reckoning
from supervisor.fleet.model_files import files_of
from supervisor.residency.measured import Held, Measured
from supervisor.residency.memory import Memory
from supervisor.residency.port import Placement

WHOLE, LEAST = "whole", "least"
"""The placements: as configured, and with the cells of one request only."""

PROCESS_BYTES = 96 << 20
"""Of a worker besides its model: the interpreter and llama.cpp's working memory."""

CACHE_SHARE = 0.25
"""A cache's size in terms of its model's file, before the first load."""


class Needs:
    """The placements of models, better ones first. In the event loop; looks at files, which may
    block for a moment."""

    def __init__(self, measured: Measured, device_limit_bytes: int | None = None) -> None:
        """`device_limit_bytes` of each GPU are for all models: a worker keeps within it, so what it
        took under another limit says nothing."""
        self.measured = measured
        self._device_limit_bytes = device_limit_bytes
        self._sizes: dict[str, int] = {}
        self._reckoned: dict[Held, Memory] = {}

    def held(self, config: ModelConfig, placement: str = WHOLE) -> Held:
        """The key of a way to hold a model. Another file under the same path is another model."""
        limit = self._device_limit_bytes if config.n_gpu_layers else None
        suffix = "" if limit is None else f":{limit}"
        return Held(
            file=identity(config),
            n_ctx=config.n_ctx,
            n_cells=config.kv_cells or 0,
            placement=f"{placement}:{config.n_gpu_layers}:{config.devices or ''}{suffix}",
        )

    def placements(self, config: ModelConfig, devices: Iterable[str]) -> tuple[Placement, ...]:
        """The ways to hold a model. `devices` are the names of the GPUs that it may use. Workers on
        other machines need nothing here."""
        if config.spread is Spread.MACHINES:
            return (Placement(name=WHOLE, need=Memory()),)
        self._sizes[config.model_path or ""] = file_bytes(config)
        names = [name for name in devices if may_use(config, name)]
        ways = [Placement(name=WHOLE, need=self._need(config, WHOLE, names, CACHE_SHARE))]
        if config.kv_cells is None:
            need = self._need(config, LEAST, names, CACHE_SHARE / 4)
            ways.append(Placement(name=LEAST, need=need, degraded=True))
        return tuple(ways)

    def size(self, config: ModelConfig) -> int:
        """The size of a model's files, as it was when its needs were last asked for."""
        return self._sizes.get(config.model_path or "", 0)

    def load_s(self, config: ModelConfig) -> float:
        """How long a load takes; 0 before the first."""
        return self.measured.load_s(self.held(config)) or 0.0

    def _need(
        self, config: ModelConfig, placement: str, devices: list[str], cache_share: float
    ) -> Memory:
        held = self.held(config, placement)
        known = self.measured.need(held) or self._reckoned.get(held)
        return known or estimated(file_bytes(config), config, devices, cache_share)

    def is_known(self, config: ModelConfig) -> bool:
        """Whether a load has shown what a model needs, or it was reckoned already."""
        held = self.held(config)
        return held in self._reckoned or self.measured.need(held) is not None

    def reckoned(self, config: ModelConfig, found: Reckoning, devices: list[str]) -> None:
        """What the header of a model's file says. One that says nothing leaves the estimate."""
        estimate = estimated(file_bytes(config), config, devices, CACHE_SHARE)
        self._reckoned[self.held(config)] = estimate if found.error else _whole(found, devices)
        if not found.error:
            self._reckoned[self.held(config, LEAST)] = _least(found, devices)


def _whole(found: Reckoning, devices: list[str]) -> Memory:
    return _spread(found.host_bytes, found.mapped_bytes, found.device_bytes, devices)


def _least(found: Reckoning, devices: list[str]) -> Memory:
    return _spread(found.least_host_bytes, found.mapped_bytes, found.least_device_bytes, devices)


def _spread(host: int, mapped: int, on_devices: int, devices: list[str]) -> Memory:
    each = dict.fromkeys(devices, on_devices // len(devices)) if devices and on_devices else {}
    return Memory(host_bytes=host, mapped_bytes=mapped, devices=each)


def estimated(n_bytes: int, config: ModelConfig, devices: list[str], cache_share: float) -> Memory:
    """The memory of a model of so many bytes, of which nothing else is known yet."""
    if config.backend is BackendKind.FAKE:
        return Memory(host_bytes=n_bytes)
    cache_bytes = int(n_bytes * cache_share)
    if devices:
        each = (n_bytes + cache_bytes) // len(devices)
        return Memory(host_bytes=PROCESS_BYTES, devices=dict.fromkeys(devices, each))
    host_bytes = PROCESS_BYTES + cache_bytes
    if not config.use_mmap:
        return Memory(host_bytes=host_bytes + n_bytes)
    return Memory(host_bytes=host_bytes, mapped_bytes=n_bytes)


def taken(
    facts: ModelFacts, config: ModelConfig, anonymous_bytes: int, devices: list[str]
) -> Memory:
    """What a ready worker has taken: its own memory, the mapped part of its file, its devices."""
    names = devices or [one.name for one in facts.devices if one.kind in {"gpu", "igpu"}]
    on_devices = facts.device_bytes if names else 0
    each = dict.fromkeys(names, on_devices // len(names)) if on_devices else {}
    if names and facts.bytes_by_device.keys() <= set(names):
        each = facts.bytes_by_device or each
    mapped = max(0, facts.model_bytes - on_devices) if config.use_mmap else 0
    return Memory(
        host_bytes=anonymous_bytes,
        mapped_bytes=mapped if config.backend is BackendKind.LLAMA else 0,
        devices=each,
    )


def placed(config: ModelConfig, placement: str) -> ModelConfig:
    """The section for a worker of this placement."""
    if placement != LEAST:
        return config
    return msgspec.structs.replace(config, kv_cells=config.n_ctx, kv_unified=KvUnified.TRUE)


def identity(config: ModelConfig) -> str:
    """Path, size and time of change of a model's first file."""
    path = config.model_path or config.backend.value
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return path
    return f"{path}:{found.st_size}:{found.st_mtime_ns}"


def file_bytes(config: ModelConfig) -> int:
    """The size of all files of a model, with its draft model and adapters; 0 if there are none."""
    return sum(_size(path) for path in set(files_of(config)))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def may_use(config: ModelConfig, device: str) -> bool:
    """Whether the configuration lets a model use a GPU."""
    named = config.devices is None or device in map(str.strip, config.devices.split(","))
    return bool(config.n_gpu_layers) and named
