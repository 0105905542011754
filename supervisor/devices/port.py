"""The monitor's port: one source for each driver or system interface."""

from typing import Protocol

from supervisor.devices.snapshot import Device, Host

Sample = Host | tuple[Device, ...]


class SourceAbsent(Exception):
    """The source's driver or interface is not on this machine. The text names the missing part."""


class DeviceSource(Protocol):
    """A source of figures. A call may be slow or hang, so each source has a thread.

    Always called on the same thread. Raises `SourceAbsent`, or anything else when it fails.
    """

    @property
    def name(self) -> str:
        """The source's name in output, such as `nvml`."""
        ...

    def sample(self) -> Sample:
        """Read everything once."""
        ...
