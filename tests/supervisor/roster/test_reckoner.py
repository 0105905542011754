"""What a model's reckoning is asked with. The process that answers is a stand-in."""

import asyncio
import sys
from pathlib import Path

import pytest

from gpufc.config import Config, FleetConfig, ModelConfig
from supervisor.fleet.group import Group
from supervisor.residency.measured import Measured
from supervisor.residency.memory import HOST, Free, Memory
from supervisor.roster import reckoner
from supervisor.roster.needs import Needs
from supervisor.roster.reckoner import Reckoner
from tests.supervisor.roster.rig import FakeDemand, FakeFleet

GIB = 1 << 30
ALL_THAT_IS_OFFERED = """
import json, sys
question = json.load(sys.stdin)
found = {"host_bytes": question["host_bytes"], "device_bytes": sum(question["device_bytes"])}
json.dump(found, sys.stdout)
"""
FREE = Free(
    at=0.0,
    host_bytes=32 * GIB,
    total_host_bytes=64 * GIB,
    devices={"CUDA0": GIB, "CUDA1": 80 * GIB},
    total_devices={"CUDA0": 2 * GIB, "CUDA1": 80 * GIB},
)


class Known:
    """One model, which has no worker."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def models(self) -> list[str]:
        return [self._group.model]

    def group(self, model: str) -> Group:
        return self._group


@pytest.mark.parametrize(
    ("limits", "host", "on_each"),
    [
        (FleetConfig(), 64 * GIB, 41 * GIB),
        (FleetConfig(device_memory_limit_bytes=4 * GIB), 64 * GIB, 3 * GIB),
        (FleetConfig(memory_limit_bytes=GIB, device_memory_limit_bytes=0), GIB, 0),
    ],
)
async def test_a_model_is_reckoned_with_what_it_may_ever_take(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: FleetConfig,
    host: int,
    on_each: int,
) -> None:
    monkeypatch.setattr(reckoner, "COMMAND", (sys.executable, "-c", ALL_THAT_IS_OFFERED))
    path = tmp_path / "m.gguf"
    path.touch()
    model = ModelConfig(model_path=str(path))
    fleet = FakeFleet(Config(models={"m": model}, fleet=limits), FakeDemand(), lambda: 0.0)
    needs = Needs(Measured(), limits.device_memory_limit_bytes)
    done = asyncio.Event()
    found = Reckoner(Known(fleet.group("m")), needs, lambda: FREE, 4, limits, lambda _: done.set())
    found.start()
    async with asyncio.timeout(60):
        await done.wait()
    await found.stop()
    need = needs.placements(fleet.group("m").config, FREE.devices)[0].need
    assert need.at(HOST) == host
    assert need == Memory(
        host_bytes=host, devices=dict.fromkeys(FREE.devices, on_each) if on_each else {}
    )
    await fleet.close()
