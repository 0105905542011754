"""How many sequences run and wait, and which worker a sequence gets."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from gpufc.config.marks import FLAG, NOW, SWAP, UPGRADE


class Routing(StrEnum):
    """How the workers of one model share its sequences (`supervisor/routing`)."""

    LEAST_OUTSTANDING = "least_outstanding"
    ROUND_ROBIN = "round_robin"
    PREFIX_AFFINITY = "prefix_affinity"


class AdmissionConfig(Struct, frozen=True, kw_only=True):
    """The number of sequences that run and wait. `n` and prompt lists count each sequence."""

    max_concurrent_requests: Annotated[
        int, Meta(ge=1, le=4096, description="sequences that run at once", extra=FLAG | SWAP)
    ] = 10
    max_queue: Annotated[
        Annotated[int, Meta(ge=0, le=1_000_000)] | None,
        Meta(
            description="sequences that may wait [default: 8 × max_concurrent_requests]", extra=NOW
        ),
    ] = None
    routing: Annotated[
        Routing,
        Meta(
            description="choice among a model's workers: prefix_affinity (where the conversation is"
            " cached, unless that one is busier), least_outstanding, round_robin; a plugin's"
            " on_route comes first",
            extra=UPGRADE,
        ),
    ] = Routing.PREFIX_AFFINITY

    @property
    def queue_limit(self) -> int:
        """`max_queue`, or its default in terms of `max_concurrent_requests`."""
        return 8 * self.max_concurrent_requests if self.max_queue is None else self.max_queue
