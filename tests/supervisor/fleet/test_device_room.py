"""What the limit of each GPU leaves for one more worker."""

from typing import Any

import pytest

from gpufc.config import ModelConfig, SplitMode
from gpufc.facts import EngineDevice, ModelFacts
from supervisor.fleet.device_room import left_for
from tests.fakes.facts import model_facts

GPUS = tuple(EngineDevice(f"CUDA{number}", "", "gpu", 0, 0) for number in range(3))
CPU = EngineDevice("CPU", "", "cpu", 0, 0)


def worker(**bytes_by_device: int) -> ModelFacts:
    return model_facts(bytes_by_device=bytes_by_device, devices=(*GPUS, CPU))


OTHERS = [worker(CUDA0=30), worker(CUDA0=5, CUDA1=10)]


@pytest.mark.parametrize(
    ("config", "left"),
    [
        ({}, 65),
        ({"devices": "CUDA0"}, 65),
        ({"devices": "CUDA1, CUDA2"}, 90),
        ({"devices": "CUDA2"}, 100),
        ({"split_mode": SplitMode.NONE}, 65),
        ({"split_mode": SplitMode.NONE, "main_gpu": 1}, 90),
        ({"split_mode": SplitMode.NONE, "main_gpu": 1, "devices": "CUDA0,CUDA2"}, 100),
        ({"split_mode": SplitMode.NONE, "main_gpu": 9}, 100),
    ],
)
def test_the_fullest_of_its_gpus_decides(config: dict[str, Any], left: int) -> None:
    assert left_for(ModelConfig(**config), 100, OTHERS) == left


def test_without_a_limit_there_is_none() -> None:
    assert left_for(ModelConfig(), None, OTHERS) is None


def test_the_first_worker_has_the_limit_and_a_late_one_nothing() -> None:
    assert left_for(ModelConfig(), 100, []) == 100
    assert left_for(ModelConfig(), 20, OTHERS) == 0


def test_an_integrated_gpu_beside_others_is_not_counted_among_them() -> None:
    igpu = EngineDevice("Vulkan0", "", "igpu", 0, 0)
    other = model_facts(bytes_by_device={"CUDA0": 30}, devices=(igpu, *GPUS, CPU))
    assert left_for(ModelConfig(split_mode=SplitMode.NONE), 100, [other]) == 70
    alone = model_facts(bytes_by_device={"Vulkan0": 30}, devices=(igpu, CPU))
    assert left_for(ModelConfig(split_mode=SplitMode.NONE), 100, [alone]) == 70
