"""An admission, and what its tests do to it."""

from gpufc.config import AdmissionConfig
from gpufc.ids import RequestNo
from supervisor.dispatch.admission import Admission


def admission(slots: int = 2, queue: int = 3, replicas: int = 1) -> Admission:
    limits = AdmissionConfig(max_concurrent_requests=slots, max_queue=queue)
    return Admission(limits, replicas)


def numbers(*values: int) -> list[RequestNo]:
    return [RequestNo(value) for value in values]


def accept(places: Admission, *values: int, owner: str = "a") -> None:
    places.accept(numbers(*values), owner)


def started(places: Admission) -> list[RequestNo]:
    """Start all that may start, in their order."""
    found = []
    while (number := places.next()) is not None:
        places.start(number)
        found.append(number)
    return found
