"""The strategy `least_outstanding`."""

from gpufc.ids import Epoch
from supervisor.routing.loads import Loads
from supervisor.routing.port import Arrival


class LeastOutstanding:
    """The worker with the fewest sequences, then with the fewest tokens to prefill, then a near
    one."""

    def choose(self, arrival: Arrival, loads: Loads) -> Epoch | None:
        return loads.least()

    def sent(self, arrival: Arrival, worker: Epoch) -> None:
        """Nothing to remember."""
