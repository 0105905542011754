"""The strategies by name. To add one: a module with a class, and its line here."""

from collections.abc import Callable

from gpufc.config import Routing
from supervisor.routing.least_outstanding import LeastOutstanding
from supervisor.routing.port import Strategy
from supervisor.routing.prefix_affinity import PrefixAffinity
from supervisor.routing.round_robin import RoundRobin

_STRATEGIES: dict[Routing, Callable[[], Strategy]] = {
    Routing.LEAST_OUTSTANDING: LeastOutstanding,
    Routing.ROUND_ROBIN: RoundRobin,
    Routing.PREFIX_AFFINITY: PrefixAffinity,
}


def strategy(name: Routing) -> Strategy:
    """A new strategy of this name."""
    return _STRATEGIES[name]()
