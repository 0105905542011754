"""The part of the fleet that dispatch and the handlers use (`supervisor.fleet.fleet.Fleet`)."""

from collections.abc import Mapping
from typing import Protocol

from gpufc.config import Replay
from gpufc.sampling import SamplingFields
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.port import Condition, SpareStatus, WorkerStatus


class ServedFleet(Protocol):
    """The served models and whether they can serve. Called in the event loop; nothing blocks."""

    def condition(self, model: str | None = None) -> Condition:
        """Whether `model`, or any model, could produce a token now. Raises `ModelNotFound`."""
        ...

    def models(self) -> list[str]:
        """The served names."""
        ...

    def resolve(self, name: str | None) -> str:
        """The served name for a client's `model`. Raises `ModelNotFound`."""
        ...

    def shown(self, name: str | None) -> str:
        """The model's name in an answer to that client: its own where it is a configured alias,
        else the served one. Raises `ModelNotFound`."""
        ...

    def replay(self, model: str) -> Replay:
        """How a continued request of `model` feeds its tokens."""
        ...

    def sampling(self, model: str) -> SamplingFields:
        """The configured defaults for sampling from `model`."""
        ...

    def adapters(self, model: str) -> tuple[str, ...]:
        """The LoRA adapters that a request of `model` may choose."""
        ...

    @property
    def restarts_total(self) -> Mapping[Reason, int]:
        """How often a worker was replaced, by the end of the process before."""
        ...

    def workers(self) -> list[WorkerStatus]:
        """A row for each worker, ready or not."""
        ...

    def spares(self) -> list[SpareStatus]:
        """A row for each spare process."""
        ...
