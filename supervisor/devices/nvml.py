"""NVIDIA GPUs, through NVML (nvidia-ml-py).

The binding is imported only if the driver's library is there, to save its memory.
"""

import ctypes
import logging
import time
from typing import Any

from supervisor.devices.nvml_card import Card
from supervisor.devices.port import SourceAbsent
from supervisor.devices.snapshot import Device, DriverError

logger = logging.getLogger(__name__)

LIBRARY = "libnvidia-ml.so.1"


class NvmlSource:
    """All GPUs that the driver shows. The first sample initialises NVML, on the sampling thread."""

    name = "nvml"

    def __init__(self, library: str = LIBRARY) -> None:
        self._library = library
        self._nvml: Any = None
        self._cards: list[Card] = []
        self._events: Any = None
        self._errors: dict[str | None, DriverError] = {}

    def sample(self) -> tuple[Device, ...]:
        """Raises `SourceAbsent` when there is no driver or no GPU."""
        nvml = self._nvml or self._initialise()
        try:
            if len(self._cards) != nvml.nvmlDeviceGetCount():
                self._open(nvml)
            self._take_errors(nvml)
            return tuple(card.read(self._errors.get(card.uuid)) for card in self._cards)
        except nvml.NVMLError:
            # the driver was reloaded or lost the GPU: the next sample begins anew
            self._nvml, self._cards, self._events = None, [], None
            raise

    def _initialise(self) -> Any:
        try:
            ctypes.CDLL(self._library)
        except OSError:
            raise SourceAbsent(f"no NVIDIA driver ({self._library} not found)") from None
        import pynvml as nvml

        try:
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as err:
            raise SourceAbsent(f"the NVIDIA driver is not usable: {err}") from err
        if not count:
            raise SourceAbsent("the NVIDIA driver shows no GPU")
        self._nvml = nvml
        return nvml

    def _open(self, nvml: Any) -> None:
        """Find the cards, and have the driver report their Xid errors."""
        self._cards = [Card(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
        self._events = None
        try:
            events = nvml.nvmlEventSetCreate()
            for card in self._cards:
                kind = nvml.nvmlEventTypeXidCriticalError
                nvml.nvmlDeviceRegisterEvents(card.handle, kind, events)
        except nvml.NVMLError as err:  # some drivers and virtual GPUs report none
            logger.info("xid_errors_not_reported: %s", err)
        else:
            self._events = events

    def _take_errors(self, nvml: Any) -> None:
        """Take the errors since the last sample. Does not wait."""
        while self._events is not None:
            try:
                event = nvml.nvmlEventSetWait_v2(self._events, 0)
            except nvml.NVMLError as err:
                if err.value != nvml.NVML_ERROR_TIMEOUT:
                    raise
                return
            error = DriverError(code=event.eventData, at=time.time())
            uuid = nvml.nvmlDeviceGetUUID(event.device)
            self._errors[uuid] = error
            logger.error("driver_error xid=%s gpu=%s", error.code, uuid)
