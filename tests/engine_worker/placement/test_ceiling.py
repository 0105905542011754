"""The memory of each GPU under a limit, as models come and go."""

import pytest

from engine_worker.placement import layers
from engine_worker.placement.ceiling import DeviceCeiling
from gpufc.facts import EngineDevice

GIB = 1 << 30


def device(free_gib: float, name: str = "CUDA0", total_gib: float = 96) -> EngineDevice:
    return EngineDevice(name, "", "gpu", int(free_gib * GIB), int(total_gib * GIB))


def frees(devices: tuple[EngineDevice, ...]) -> list[float]:
    return [one.memory_free_bytes / GIB for one in devices]


def test_without_a_limit_what_is_free_is_free() -> None:
    ceiling = DeviceCeiling()
    assert ceiling.under([device(24), device(8, "CUDA1")]) == (device(24), device(8, "CUDA1"))
    assert ceiling.taken([device(20), device(8, "CUDA1")]) == {"CUDA0": 4 * GIB}


@pytest.mark.parametrize(("limit_gib", "expected"), [(0, 0), (3.5, 3.5), (24, 24), (80, 24)])
def test_at_most_the_limit_is_free_and_at_most_what_there_is(
    limit_gib: float, expected: float
) -> None:
    assert frees(DeviceCeiling(int(limit_gib * GIB)).under([device(24)])) == [expected]


def test_what_the_process_has_taken_counts_on_each_device_by_itself() -> None:
    ceiling = DeviceCeiling(10 * GIB)
    ceiling.under([device(90), device(12, "CUDA1")])
    assert frees(ceiling.under([device(83), device(9, "CUDA1")])) == [3, 7]
    # the limit is 10 there, and 2 were taken by others before
    assert frees(ceiling.under([device(82), device(1, "CUDA1")])) == [2, 0]


def test_a_second_model_of_the_process_gets_what_the_first_has_left() -> None:
    ceiling = DeviceCeiling(10 * GIB)
    ceiling.under([device(90)])  # a draft model is loaded here
    assert frees(ceiling.under([device(86), device(90, "CUDA1")])) == [6, 10]
    taken = ceiling.taken([device(81), device(88, "CUDA1")])
    assert taken == {"CUDA0": 9 * GIB, "CUDA1": 2 * GIB}


def test_memory_that_others_have_given_back_is_no_room_of_the_process() -> None:
    ceiling = DeviceCeiling(10 * GIB)
    ceiling.under([device(40)])
    assert ceiling.taken([device(34)]) == {"CUDA0": 6 * GIB}
    assert frees(ceiling.under([device(60)])) == [4]
    assert ceiling.taken([device(57)]) == {"CUDA0": 9 * GIB}


def test_what_the_process_gives_back_is_room_again() -> None:
    ceiling = DeviceCeiling(10 * GIB)
    ceiling.under([device(40), device(40, "CUDA1")])
    own = ceiling.taken([device(38), device(40, "CUDA1")])
    assert frees(ceiling.under([device(31), device(35, "CUDA1")])) == [1, 5]
    ceiling.given_back([device(38), device(40, "CUDA1")], own)
    assert frees(ceiling.under([device(38), device(40, "CUDA1")])) == [8, 10]
    assert ceiling.taken([device(36), device(40, "CUDA1")]) == {"CUDA0": 4 * GIB}


def test_a_device_that_reports_no_memory_has_no_limit() -> None:
    silent = device(0, total_gib=0)
    assert layers.usable_bytes(DeviceCeiling(GIB).under([silent])) > 1 << 60


def test_under_a_limit_all_devices_are_full_at_once() -> None:
    devices = DeviceCeiling(int(3.5 * GIB)).under([device(90), device(2, "CUDA1")])
    shares = layers.filling_shares(devices)
    assert shares == (3 * GIB, 1.5 * GIB)
    assert layers.usable_bytes(devices, shares) == 4.5 * GIB
    # one that has no room beyond its reserve takes no part
    devices = DeviceCeiling(int(3.5 * GIB)).under([device(90), device(0.25, "CUDA1")])
    assert layers.usable_bytes(devices, layers.filling_shares(devices)) == 3 * GIB
