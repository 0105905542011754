"""The GPUs of one model: which they are, their memory now, and what the process has taken there."""

import ctypes
from collections.abc import Mapping

from engine_worker.backend.llama.devices import known_devices, with_memory
from engine_worker.placement import layers
from engine_worker.placement.ceiling import DeviceCeiling
from gpufc.config import ModelConfig
from gpufc.facts import EngineDevice


class UsedDevices:
    """The GPUs that a configuration chooses. The others are never asked for their memory."""

    def __init__(self, library: ctypes.CDLL, config: ModelConfig, ceiling: DeviceCeiling) -> None:
        self._library, self._config, self._ceiling = library, config, ceiling

    def now(self) -> tuple[EngineDevice, ...]:
        """With the memory that the process may take now. Raises `ModelLoadError` for a device that
        does not exist."""
        return self._ceiling.under(self._looked_at())

    def taken(self) -> dict[str, int]:
        """The bytes that the process has taken since its first look, by device. After `now`."""
        return self._ceiling.taken(self._looked_at())

    def given_back(self, own: Mapping[str, int]) -> None:
        """The process has freed memory, and has only `own` (of `taken`)."""
        self._ceiling.given_back(self._looked_at(), own)

    def among_all(self) -> tuple[EngineDevice, ...]:
        """All devices. Those that are not used have no figures of their memory, except the CPU."""
        known = known_devices(self._library)
        used = {one.name for one in layers.chosen_devices(known, self._config)}
        asked = [one for one in known if one.name in used or one.kind == "cpu"]
        figures = {one.name: one for one in with_memory(self._library, asked)}
        return tuple(figures.get(one.name, one) for one in known)

    def shares(self, devices: tuple[EngineDevice, ...]) -> tuple[float, ...]:
        """The shares of a model over `devices` of `now`; empty if llama.cpp decides. It knows what
        is free and not the limit, so under a limit the shares are chosen here."""
        chosen = layers.split_shares(self._config.tensor_split)
        if any(chosen) or self._ceiling.limit_bytes is None or len(devices) < 2:
            return chosen
        return layers.filling_shares(devices)

    def _looked_at(self) -> tuple[EngineDevice, ...]:
        chosen = layers.chosen_devices(known_devices(self._library), self._config)
        return with_memory(self._library, chosen)
