"""The devices of a model, and the number of its layers there: pure arithmetic on free memory.

It is an estimate from before the model is loaded. If it was too high, loading fails for lack of
memory, and is tried again with `fewer_layers`.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from engine_worker.placement import cells
from engine_worker.placement.footprint import Footprint
from gpufc.amount import amount
from gpufc.config import ModelConfig, SplitMode
from gpufc.errors import MemoryShort, ModelLoadError
from gpufc.facts import EngineDevice

GPU_RESERVE_BYTES = 512 << 20
"""Left free on each device for allocations of the first steps. If one fails, the process dies."""

SHRINK = 4
"""One in so many layers goes back to the host when they did not fit after all."""


def chosen_devices(
    devices: Sequence[EngineDevice], config: ModelConfig
) -> tuple[EngineDevice, ...]:
    """The GPUs that the model is spread over, in llama.cpp's order; empty without a GPU.

    Integrated GPUs count if there is no other. Raises `ModelLoadError` for a device that does not
    exist.
    """
    found = [one for one in devices if one.kind == "gpu"]
    found = found or [one for one in devices if one.kind == "igpu"]
    if config.devices is not None:
        found = list(_named(devices, config.devices))
    if config.split_mode is SplitMode.NONE and found:
        if config.main_gpu >= len(found):
            raise ModelLoadError(f"main_gpu is {config.main_gpu}, and there are {len(found)} GPUs")
        found = [found[config.main_gpu]]
    return tuple(found)


def _named(devices: Sequence[EngineDevice], names: str) -> Iterator[EngineDevice]:
    known = {one.name: one for one in devices if one.kind != "cpu"}
    for name in names.split(","):
        if name.strip() not in known:
            there = ", ".join(known) or "none but the CPU"
            raise ModelLoadError(f"there is no device {name.strip()!r}; there is {there}")
        yield known[name.strip()]


def split_shares(text: str | None) -> tuple[float, ...]:
    """`tensor_split` as numbers; empty if llama.cpp decides."""
    return tuple(float(share) for share in text.split(",")) if text else ()


def filling_shares(devices: Sequence[EngineDevice]) -> tuple[float, ...]:
    """The shares with which all devices are full at once, each but for its reserve."""
    return tuple(max(0.0, _free_bytes(one) - GPU_RESERVE_BYTES) for one in devices)


def usable_bytes(devices: Sequence[EngineDevice], shares: Sequence[float] = ()) -> int:
    """The largest model that fits on these devices.

    It is spread by `shares`, or else by free memory. The device that is full first is the limit.
    """
    free = [_free_bytes(one) for one in devices]
    weights = [*shares, *[0.0] * len(free)][: len(free)] if any(shares) else free
    total = sum(weights)
    rooms = [
        max(0.0, room - GPU_RESERVE_BYTES) * total / weight
        for room, weight in zip(free, weights, strict=True)
        if weight > 0
    ]
    return int(min(rooms, default=0.0))


def _free_bytes(device: EngineDevice) -> float:
    # some devices report no memory at all, and set no limit
    return float(device.memory_free_bytes if device.memory_total_bytes else 1 << 62)


class Demand(Struct, frozen=True, kw_only=True):
    """The memory that a model needs, for any number of its layers on GPUs.

    `gpu_batch` and `cpu_batch` are the tokens of a pass with layers on a GPU and without. The
    `flash_…` fields say whether flash attention is certain: with the whole model on a GPU, with a
    part of it, with none.
    """

    model: Footprint
    wish: cells.Wish
    gpu_batch: int
    cpu_batch: int
    flash_on_gpu: bool
    flash_in_parts: bool
    flash_on_cpu: bool

    def fitting_layers(self, wanted: int, room_bytes: int) -> int:
        """The layers, at most `wanted`, that fit on GPUs with the smallest cache that suffices."""
        for n_layers in range(min(wanted, self.model.n_layers), 0, -1):
            if self.device_bytes(n_layers) <= room_bytes:
                return n_layers
        return 0

    def device_bytes(self, n_layers: int) -> int:
        """The GPU memory of `n_layers` with the smallest cache that suffices."""
        cache = self._device_store(n_layers, 0).needed_bytes(
            self.wish.least_cells, self.wish.least_attended
        )
        return self.model.device_bytes(n_layers) + int(cache / cells.GPU_SHARE)

    def stores(self, n_layers: int, *, device_room: int, host_room: int) -> list[cells.Store]:
        """The memory that will hold the cache, with `n_layers` loaded on GPUs."""
        if n_layers and n_layers == self.model.n_layers:
            return [self._device_store(n_layers, device_room)]
        one_state = sum(self.model.state_bytes) - self.model.device_state_bytes(n_layers)
        host = cells.Store(
            cell_bytes=self.model.bytes_per_cell - self.model.device_cell_bytes(n_layers),
            score_bytes=self._score_bytes(n_layers),
            states_bytes=self.wish.n_sequences * one_state,
            available_bytes=host_room,
            on_gpu=False,
        )
        return [self._device_store(n_layers, device_room), host] if n_layers else [host]

    def _device_store(self, n_layers: int, room_bytes: int) -> cells.Store:
        return cells.Store(
            cell_bytes=self.model.device_cell_bytes(n_layers),
            score_bytes=self._score_bytes(n_layers),
            states_bytes=self.wish.n_sequences * self.model.device_state_bytes(n_layers),
            available_bytes=room_bytes,
            on_gpu=True,
        )

    def _score_bytes(self, n_layers: int) -> int:
        if not n_layers:
            return self.model.score_bytes(self.cpu_batch, flash=self.flash_on_cpu)
        is_whole = n_layers == self.model.n_layers
        flash = self.flash_on_gpu if is_whole else self.flash_in_parts
        return self.model.score_bytes(self.gpu_batch, flash=flash)


def fewer_layers(n_layers: int) -> int:
    """The number of layers to try after `n_layers` did not fit."""
    return n_layers - -(-n_layers // SHRINK)


def layers_short(n_layers: int, needed: int, room: int) -> MemoryShort:
    """The error for `n_layers` that do not fit on the GPUs."""
    return MemoryShort(
        f"{n_layers} layers on the GPU need {amount(needed)}, and {amount(room)} of device memory"
        " can be used; set a smaller n_gpu_layers or n_ctx",
        needed_bytes=needed,
        available_bytes=room,
        on_device=True,
    )
