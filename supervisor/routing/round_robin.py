"""The strategy `round_robin`."""

from gpufc.ids import Epoch
from supervisor.routing.loads import Loads
from supervisor.routing.port import Arrival


class RoundRobin:
    """The workers with room in turn, whatever their load."""

    def choose(self, arrival: Arrival, loads: Loads) -> Epoch | None:
        return loads.next_in_turn()

    def sent(self, arrival: Arrival, worker: Epoch) -> None:
        """Nothing to remember: the loads keep the turns."""
