"""The port through which the monitor samples: one source for each driver or system interface."""

from typing import Protocol

from supervisor.devices.snapshot import Device, Host

Sample = Host | tuple[Device, ...]


class SourceAbsent(Exception):
    """What this source would read is not on this machine. The text says what was not found."""


class DeviceSource(Protocol):
    """Something that can be sampled. It may be slow or hang: it is called on a thread of its own.

    Always called on the same thread. Raises `SourceAbsent`, or anything else when it fails.
    """

    @property
    def name(self) -> str:
        """Names the source to people, such as `nvml`."""
        ...

    def sample(self) -> Sample:
        """Read everything once."""
        ...
