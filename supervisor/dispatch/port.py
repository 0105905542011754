"""What dispatch needs of the fleet (`supervisor.fleet.fleet.Fleet` has it)."""

from typing import Protocol

from gpufc.config import Replay
from supervisor.fleet.port import Condition, SpareStatus, WorkerStatus


class ServedFleet(Protocol):
    """The served models and whether they can serve. Called in the event loop; nothing blocks."""

    def condition(self, model: str | None = None) -> Condition:
        """Whether a token could be produced now, by `model` or by any. Raises `ModelNotFound`."""
        ...

    def models(self) -> list[str]:
        """The names that models are served under."""
        ...

    def resolve(self, name: str | None) -> str:
        """The served name that a client's `model` means. Raises `ModelNotFound`."""
        ...

    def replay(self, model: str) -> Replay:
        """How a continued request of `model` feeds its tokens."""
        ...

    def workers(self) -> list[WorkerStatus]:
        """A row for each worker, ready or not."""
        ...

    def spares(self) -> list[SpareStatus]:
        """A row for each process that waits to become a worker."""
        ...
