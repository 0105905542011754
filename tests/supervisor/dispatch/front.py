"""A dispatcher over a fake fleet, and a death of its workers."""

import time
from collections.abc import Callable

from gpufc.config import AdmissionConfig
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.request import ANONYMOUS, GenerationRequest, Principal
from supervisor.dispatch.stream import ResponseStream
from supervisor.fleet.exit_reason import ExitReason, Reason
from tests.supervisor.dispatch.fakes import FakeFleet, request

CRASHED = ExitReason(signal=11, reason=Reason.CRASHED, at=0.0)


class Front:
    """A dispatcher over a fake fleet."""

    def __init__(
        self,
        slots: int = 2,
        queue: int | None = None,
        replicas: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fleet = FakeFleet(replicas=replicas)
        limits = AdmissionConfig(max_concurrent_requests=slots, max_queue=queue)
        self.dispatcher = Dispatcher(self.fleet, limits, clock=clock)
        self.fleet.dispatcher = self.dispatcher

    def submit(
        self, wanted: GenerationRequest | None = None, principal: Principal = ANONYMOUS
    ) -> ResponseStream:
        return self.dispatcher.submit(wanted or request(), principal)

    @property
    def requests(self) -> dict[str, int]:
        counters = self.dispatcher.ledger.requests
        return {name: getattr(counters, name) for name in counters.__struct_fields__}
