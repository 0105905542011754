"""A front that is taken out of service, and its stop."""

from typing import Any

import pytest

from gpufc.errors import Overloaded
from supervisor.fleet.port import ConditionStatus
from supervisor.operations import Operations
from tests.supervisor.dispatch.fakes import until
from tests.supervisor.dispatch.front import Front


async def test_a_drain_is_undone_until_a_stop_has_been_requested() -> None:
    front: Any = Front()
    operations = Operations(front)
    for _ in range(2):
        operations.drain()
        await until(lambda: operations.is_drained)
        operations.undrain()
        assert not operations.is_drained
    operations.drain(lead_s=3600.0)
    operations.request_stop()
    with pytest.raises(Overloaded):
        operations.undrain()
    assert front.dispatcher.condition().status is ConditionStatus.DRAINING
