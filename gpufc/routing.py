"""The names of the routing strategies."""

from enum import StrEnum


class Routing(StrEnum):
    """How a model's workers share its sequences."""

    LEAST_OUTSTANDING = "least_outstanding"
    ROUND_ROBIN = "round_robin"
    PREFIX_AFFINITY = "prefix_affinity"
