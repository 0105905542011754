"""The control socket's port to the front."""

from collections.abc import Sequence
from typing import Any, Protocol

from gpufc.changes import Change
from gpufc.settings import Value
from supervisor.fleet.operation import Operation
from supervisor.fleet.port import ModelChange


class ControlledFront(Protocol):
    """The front, as operators' commands use it. Called in the event loop; never blocks."""

    def status(self) -> Any:
        """The `/stats` document with `front` (pid, addresses, condition): plain data or structs."""
        ...

    def effective_values(self) -> Sequence[Value]:
        """Every configuration value in force."""
        ...


class Reloading(Protocol):
    """A reload that has begun (`supervisor.operations.Reloading`)."""

    operation: Operation
    changes: tuple[Change, ...]


class Operator(Protocol):
    """What the control socket can have done (`supervisor.operations.Operations`)."""

    def request_stop(self, now: bool = False) -> None:
        """Begin to drain. With `now`, or the second time, end at once. Returns immediately."""
        ...

    def drain(self, lead_s: float = 0.0) -> None:
        """Tell balancers that the front leaves, and refuse new requests after `lead_s`. Accepted
        ones go on. The front does not end. Returns immediately."""
        ...

    def undrain(self) -> None:
        """Take requests again. Raises `Overloaded` if a stop has been requested."""
        ...

    @property
    def is_drained(self) -> bool:
        """Whether new requests are refused and none is left."""
        ...

    def restart(self, worker: str | None, now: bool = False) -> Operation:
        """Begin to replace a worker, or all one after another. Raises `NotFound`."""
        ...

    def swap(self, name: str | None, change: ModelChange) -> Operation:
        """Begin to serve another model under a served name; None means the only one."""
        ...

    def reload(self, *, is_trial: bool = False) -> Reloading:
        """Begin to read the configuration again and to apply it. A trial applies nothing."""
        ...

    def load(self, model: str) -> Operation:
        """Begin to load a model. Raises `ModelNotFound`."""
        ...

    def unload(self, model: str) -> Operation:
        """Begin to unload a model. Raises `ModelNotFound`."""
        ...
