"""What a model needs: measured, else reckoned from its header, else estimated by its file."""

from pathlib import Path

import pytest

from gpufc.config import BackendKind, KvUnified, ModelConfig
from gpufc.reckoning import Reckoning
from supervisor.residency.measured import Measured
from supervisor.residency.memory import Memory
from supervisor.roster.needs import LEAST, PROCESS_BYTES, WHOLE, Needs, may_use, placed, taken
from tests.fakes.facts import model_facts

MIB = 1 << 20


@pytest.fixture
def config(tmp_path: Path) -> ModelConfig:
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:
        file.truncate(100 * MIB)
    return ModelConfig(model_path=str(path))


def test_a_file_is_estimated_by_its_size(config: ModelConfig) -> None:
    whole, least = Needs(Measured()).placements(config, [])
    assert (whole.name, least.name, least.degraded) == (WHOLE, LEAST, True)
    assert whole.need == Memory(host_bytes=PROCESS_BYTES + 25 * MIB, mapped_bytes=100 * MIB)
    assert least.need.host_bytes < whole.need.host_bytes


def test_a_header_tells_more_than_a_size(config: ModelConfig) -> None:
    needs = Needs(Measured())
    assert not needs.is_known(config)
    found = Reckoning(host_bytes=7 * MIB, mapped_bytes=99 * MIB, least_host_bytes=5 * MIB)
    needs.reckoned(config, found, [])
    whole, least = needs.placements(config, [])
    assert needs.is_known(config)
    assert (whole.need.host_bytes, least.need.host_bytes) == (7 * MIB, 5 * MIB)


def test_a_header_that_tells_nothing_is_not_read_again(config: ModelConfig) -> None:
    needs = Needs(Measured())
    needs.reckoned(config, Reckoning(error="it is broken"), [])
    assert needs.is_known(config)
    assert needs.placements(config, [])[0].need.mapped_bytes == 100 * MIB


def test_what_a_load_took_tells_the_most(config: ModelConfig) -> None:
    measured = Measured()
    needs = Needs(measured)
    needs.reckoned(config, Reckoning(host_bytes=7 * MIB), [])
    measured.loaded(needs.held(config), "abc", Memory(host_bytes=9 * MIB), 1.5)
    assert needs.placements(config, [])[0].need == Memory(host_bytes=9 * MIB)
    assert needs.load_s(config) == 1.5


def test_another_file_under_the_same_path_is_another_model(config: ModelConfig) -> None:
    measured = Measured()
    needs = Needs(measured)
    measured.loaded(needs.held(config), "abc", Memory(host_bytes=9 * MIB), 1.5)
    assert config.model_path is not None
    with Path(config.model_path).open("ab") as file:
        file.write(b"more")
    assert not needs.is_known(config)


def test_what_a_load_took_under_another_limit_tells_nothing(config: ModelConfig) -> None:
    measured = Measured()
    free, limited = Needs(measured), Needs(measured, 50 * MIB)
    whole = Memory(devices={"CUDA0": 90 * MIB})
    measured.loaded(free.held(config), "abc", whole, 1.5)
    assert not limited.is_known(config)
    assert not Needs(measured, 60 * MIB).is_known(config)
    assert free.placements(config, ["CUDA0"])[0].need == whole
    on_host = ModelConfig(model_path=config.model_path, n_gpu_layers=0)
    assert limited.held(on_host) == free.held(on_host)


def test_a_model_on_gpus_needs_their_memory(config: ModelConfig) -> None:
    whole, _ = Needs(Measured()).placements(config, ["CUDA0", "CUDA1"])
    assert set(whole.need.devices) == {"CUDA0", "CUDA1"}
    assert sum(whole.need.devices.values()) == 125 * MIB


@pytest.mark.parametrize(
    ("config", "device", "may"),
    [
        (ModelConfig(), "CUDA1", True),
        (ModelConfig(devices="CUDA0"), "CUDA1", False),
        (ModelConfig(devices="CUDA0,CUDA1"), "CUDA1", True),
        (ModelConfig(devices="CUDA0, CUDA1"), "CUDA1", True),
        (ModelConfig(n_gpu_layers=0), "CUDA1", False),
    ],
)
def test_the_configuration_says_which_gpus_a_model_may_use(
    config: ModelConfig, device: str, may: bool
) -> None:
    assert may_use(config, device) is may


def test_cells_that_were_asked_for_leave_no_smaller_way(config: ModelConfig) -> None:
    ways = Needs(Measured()).placements(ModelConfig(model_path=config.model_path, kv_cells=64), [])
    assert [way.name for way in ways] == [WHOLE]


def test_the_smallest_way_holds_one_request() -> None:
    config = placed(ModelConfig(n_ctx=512), LEAST)
    assert (config.kv_cells, config.kv_unified) == (512, KvUnified.TRUE)
    assert placed(ModelConfig(n_ctx=512), WHOLE) == ModelConfig(n_ctx=512)


def test_a_loaded_worker_has_taken_its_own_memory_its_file_and_its_gpus() -> None:
    facts = model_facts(model_bytes=100 * MIB, device_bytes=40 * MIB)
    held = taken(facts, ModelConfig(), 7 * MIB, ["CUDA0"])
    assert held == Memory(host_bytes=7 * MIB, mapped_bytes=60 * MIB, devices={"CUDA0": 40 * MIB})
    read = taken(facts, ModelConfig(use_mmap=False), 7 * MIB, ["CUDA0"])
    assert read.mapped_bytes == 0
    fake = taken(facts, ModelConfig(backend=BackendKind.FAKE), 7 * MIB, [])
    assert (fake.mapped_bytes, fake.devices) == (0, {})


def test_what_each_gpu_has_of_a_worker_is_as_the_worker_says() -> None:
    uneven = {"CUDA0": 30 * MIB, "CUDA1": 10 * MIB}
    facts = model_facts(model_bytes=0, device_bytes=40 * MIB, bytes_by_device=uneven)
    assert taken(facts, ModelConfig(), 0, ["CUDA0", "CUDA1"]).devices == uneven
    # the monitor has other names for them
    others = ["CUDA2", "CUDA3"]
    assert taken(facts, ModelConfig(), 0, others).devices == dict.fromkeys(others, 20 * MIB)
