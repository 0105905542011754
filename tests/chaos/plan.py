"""The requests and the service of a cell: the port between the matrix and the two engines."""

from pathlib import Path
from typing import Protocol

from msgspec import Struct

from tests.chaos.faults import Fault
from tests.chaos.load import Ask
from tests.chaos.moments import Moment
from tests.chaos.rig import Rig

SETTINGS = {"GPUFC_RESTART_LIMIT": "10000", "GPUFC_LOG_LEVEL": "warning"}


class Setup(Struct, frozen=True):
    """How the service of a cell is configured. Cells with equal setups share services.

    `alone`: a service for each cell. `memory_bytes`: the limit of the service's memory, 0 for none.
    `{marker}` in a variable stands for the file without which the next load goes wrong.
    """

    arguments: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    alone: bool = False
    memory_bytes: int = 0

    def environ(self, marker: Path) -> dict[str, str]:
        """The variables of a service with this marker."""
        return SETTINGS | {name: value.format(marker=marker) for name, value in self.variables}


class Plan(Struct, frozen=True):
    """The requests of one cell.

    `beside` run beside the stream under test, `fillers` take all places before it. `lasts` are the
    numbers of its tokens during which its moment lasts, for moments that are such; a third of
    `n_tokens` comes before any other event that has to happen first.
    """

    ask: Ask
    n_tokens: int
    beside: tuple[Ask, ...] = ()
    fillers: tuple[Ask, ...] = ()
    lasts: frozenset[int] = frozenset()

    @property
    def third(self) -> int:
        return self.n_tokens // 3


class World(Protocol):
    """An engine to do harm to."""

    def setup(self, fault: Fault, moment: Moment) -> Setup: ...
    async def prepare(self, one: Rig) -> None:
        """Once for each service, before its first cell."""
        ...

    def plan(
        self,
        fault: Fault,
        moment: Moment,
        name: str,
        once: Path,
        *,
        streamed: bool,
        n_misses: int,
    ) -> Plan:
        """The requests of a try. After misses a stream may last longer, so that it meets its
        moment on a slow machine too."""
        ...

    def spoil(self, marker: Path) -> None:
        """Let the next load go wrong, in a service with this marker."""
        ...

    def mend(self) -> None:
        """Let loads go well again."""
        ...

    def other_model(self, now: str | None) -> str:
        """The model to swap to from the model `now`."""
        ...
