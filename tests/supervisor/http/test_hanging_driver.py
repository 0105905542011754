"""A driver call that hangs is told in `/stats`, and never keeps it waiting."""

import threading

from gpufc.config import Config
from supervisor.devices.monitor import DeviceMonitor
from supervisor.devices.port import Sample
from supervisor.devices.snapshot import SourceState
from tests.supervisor.dispatch.fakes import until
from tests.supervisor.http.conftest import Service


class HangingDriver:
    name = "hanging"

    def __init__(self) -> None:
        self.called = threading.Event()
        self.release = threading.Event()

    def sample(self) -> Sample:
        self.called.set()
        self.release.wait()
        return ()


async def test_stats_answers_while_a_driver_hangs_and_says_so() -> None:
    driver = HangingDriver()
    monitor = DeviceMonitor([driver], interval_s=0.01, hung_after_s=0.05)
    monitor.start()
    service = Service(Config(), monitor)
    await service.start()
    try:
        await until(driver.called.is_set)
        await until(lambda: monitor.snapshot().sources[0].state is SourceState.HUNG)
        answer = await service.get("/stats")
        assert answer.status == 200
        assert not driver.release.is_set()
        (source,) = answer.json["sources"]
        assert (source["name"], source["state"]) == ("hanging", "hung")
    finally:
        driver.release.set()
        monitor.stop()
        await service.stop()
