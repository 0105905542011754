"""The strategy `least_outstanding`."""

from gpufc.ids import Epoch
from supervisor.routing.loads import Loads
from supervisor.routing.port import Arrival


class LeastOutstanding:
    """The worker with the fewest sequences, then with the fewest tokens to prefill, then a near
    one."""

    def choose(self, arrival: Arrival, loads: Loads) -> Epoch | None:
        return least_for(arrival, loads)

    def sent(self, arrival: Arrival, worker: Epoch) -> None:
        """Nothing to remember."""


def least_for(arrival: Arrival, loads: Loads) -> Epoch | None:
    """The least busy worker with room. A replay goes where it goes on the soonest: the replays of a
    lost worker come all at once, and the fewest sequences would be those of one worker for long."""
    return loads.soonest() if arrival.is_replay else loads.least()
