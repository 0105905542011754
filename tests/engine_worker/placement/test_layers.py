from typing import Any

import pytest

from engine_worker.placement import cells, layers
from engine_worker.placement.footprint import Footprint
from engine_worker.placement.layers import Demand
from gpufc.config import KvUnified, ModelConfig, SplitMode
from gpufc.errors import ModelLoadError
from gpufc.facts import EngineDevice

MIB = 1 << 20
GIB = 1 << 30


def device(name: str, free_gib: float, kind: str = "gpu") -> EngineDevice:
    return EngineDevice(
        name=name,
        description="",
        kind=kind,
        memory_free_bytes=int(free_gib * GIB),
        memory_total_bytes=96 * GIB,
    )


CPU = device("CPU", 64, "cpu")
FIRST, SECOND = device("CUDA0", 24.5), device("CUDA1", 8.5)
INTEGRATED = device("Vulkan0", 8, "igpu")


def names(config: ModelConfig, *devices: EngineDevice) -> list[str]:
    return [one.name for one in layers.chosen_devices(devices, config)]


def test_all_gpus_are_used_and_integrated_ones_where_there_is_no_other() -> None:
    assert names(ModelConfig(), CPU, FIRST, SECOND, INTEGRATED) == ["CUDA0", "CUDA1"]
    assert names(ModelConfig(), CPU, INTEGRATED) == ["Vulkan0"]
    assert names(ModelConfig(), CPU) == []


def test_devices_are_used_that_are_named_and_in_that_order() -> None:
    config = ModelConfig(devices="CUDA1, Vulkan0")
    assert names(config, CPU, FIRST, SECOND, INTEGRATED) == ["CUDA1", "Vulkan0"]


def test_a_device_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ModelLoadError, match=r"no device 'CUDA7'; there is CUDA0, CUDA1"):
        names(ModelConfig(devices="CUDA7"), CPU, FIRST, SECOND)
    with pytest.raises(ModelLoadError, match="none but the CPU"):
        names(ModelConfig(devices="CUDA0"), CPU)


def test_without_a_split_one_gpu_has_all() -> None:
    config = ModelConfig(split_mode=SplitMode.NONE, main_gpu=1)
    assert names(config, CPU, FIRST, SECOND) == ["CUDA1"]
    assert names(config, CPU) == []
    with pytest.raises(ModelLoadError, match="main_gpu is 1, and there are 1 GPUs"):
        names(config, CPU, FIRST)


def test_room_is_free_memory_less_a_reserve_for_each_device() -> None:
    assert layers.usable_bytes([]) == 0
    assert layers.usable_bytes([FIRST]) == 24 * GIB
    # spread by free memory: the smaller one has the relatively larger reserve
    both = layers.usable_bytes([FIRST, SECOND])
    assert 31 * GIB < both < 32 * GIB


def test_the_device_that_is_full_first_decides() -> None:
    assert layers.usable_bytes([FIRST, SECOND], (1, 1)) == 16 * GIB
    assert layers.usable_bytes([FIRST, SECOND], (3, 1)) == 32 * GIB
    assert layers.usable_bytes([FIRST, SECOND], (1,)) == 24 * GIB
    assert layers.usable_bytes([FIRST, SECOND], (0, 0)) > 31 * GIB


def test_a_device_that_reports_no_memory_does_not_limit() -> None:
    silent = EngineDevice("X", "", "gpu", memory_free_bytes=0, memory_total_bytes=0)
    assert layers.usable_bytes([silent]) > 1 << 60


def test_shares_are_numbers() -> None:
    assert layers.split_shares("3,1.5") == (3.0, 1.5)
    assert layers.split_shares(None) == ()


def demand(**more: Any) -> Demand:
    """Ten layers of 1 GiB, an output of half of one, and a cache of 1 MiB a cell."""
    given = {
        "model": Footprint(
            layer_bytes=(GIB,) * 10,
            output_bytes=GIB // 2,
            cell_bytes=(MIB // 10,) * 10,
            state_bytes=(0,) * 10,
            n_heads=32,
        ),
        "wish": cells.Wish(n_ctx=4096, n_running=8, n_sequences=8, unified=KvUnified.TRUE),
        "gpu_batch": 1024,
        "cpu_batch": 128,
        "flash_on_gpu": True,
        "flash_in_parts": True,
        "flash_on_cpu": False,
    }
    return Demand(**{**given, **more})


def test_as_many_layers_as_fit_with_one_context() -> None:
    needs = demand()
    for n_layers in range(1, 11):
        exactly = needs.device_bytes(n_layers)
        assert needs.fitting_layers(999, exactly) == n_layers
        assert needs.fitting_layers(999, exactly - 1) == n_layers - 1
    assert needs.fitting_layers(3, 1 << 60) == 3
    whole = 10 * GIB + GIB // 2 + int(4096 * (MIB // 10 * 10 + 2048) / cells.GPU_SHARE)
    assert needs.device_bytes(10) == whole


def test_streams_that_were_asked_for_take_the_place_of_layers() -> None:
    streams = cells.Wish(n_ctx=4096, n_running=8, n_sequences=8, unified=KvUnified.FALSE)
    room = 20 * GIB
    assert demand().fitting_layers(10, room) == 10
    assert demand(wish=streams).fitting_layers(10, room) < 5


def test_parts_of_a_model_count_with_the_scores_that_flash_attention_saves() -> None:
    needs = demand(flash_in_parts=False)
    assert needs.device_bytes(10) == demand().device_bytes(10)
    assert needs.device_bytes(9) - demand().device_bytes(9) == pytest.approx(
        4096 * 1024 * (4 + 6 * 32 - 2) / cells.GPU_SHARE, abs=2
    )


def test_of_a_model_in_parts_each_memory_holds_its_layers_cells() -> None:
    device_store, host_store = demand().stores(3, device_room=7, host_room=9)
    assert (device_store.on_gpu, device_store.cell_bytes) == (True, 3 * (MIB // 10))
    assert (host_store.on_gpu, host_store.cell_bytes) == (False, 7 * (MIB // 10))
    assert (device_store.available_bytes, host_store.available_bytes) == (7, 9)


def test_a_whole_model_has_its_cache_where_it_is() -> None:
    (on_device,) = demand().stores(10, device_room=7, host_room=9)
    assert on_device.on_gpu
    (on_host,) = demand().stores(0, device_room=7, host_room=9)
    assert (on_host.on_gpu, on_host.score_bytes) == (False, 128 * (4 + 6 * 32))


def test_fewer_layers_come_to_none_in_a_few_steps() -> None:
    tried = [81]
    while tried[-1]:
        tried.append(layers.fewer_layers(tried[-1]))
    assert tried == [81, 60, 45, 33, 24, 18, 13, 9, 6, 4, 3, 2, 1, 0]
