"""The configuration of a second worker that loads while the first one serves."""

import pytest

from gpufc.config import KvUnified, ModelConfig
from gpufc.facts import ModelFacts
from supervisor.fleet.kv_handover import DEFAULT_BYTES, limit
from supervisor.fleet.replacement_rules import pinned, with_all_gpu_layers
from tests.fakes.facts import model_facts


def obtained(*, unified: bool, n_gpu_layers: int = 0) -> ModelFacts:
    return model_facts(
        n_ctx=4096, kv_cells=20_480, n_layers=30, n_gpu_layers=n_gpu_layers, unified=unified
    )


@pytest.mark.parametrize("asked", [KvUnified.AUTO, KvUnified.TRUE])
def test_a_second_worker_gets_the_cells_that_the_first_one_has(asked: KvUnified) -> None:
    config = pinned(ModelConfig(kv_unified=asked), obtained(unified=True))
    assert (config.kv_unified, config.kv_cells) == (KvUnified.TRUE, 20_480)


def test_a_second_worker_gets_streams_if_the_first_one_has_them() -> None:
    config = pinned(ModelConfig(), obtained(unified=False))
    assert (config.kv_unified, config.kv_cells) == (KvUnified.FALSE, None)


@pytest.mark.parametrize(
    ("wanted", "old_layers", "new_layers", "expected"),
    [
        (None, 0, 0, DEFAULT_BYTES),
        (None, 30, 30, 0),
        (None, 20, 20, DEFAULT_BYTES),
        (None, 30, 20, DEFAULT_BYTES),
        (1000, 0, 0, 1000),
        (1000, 30, 30, 1000),
        (0, 0, 0, 0),
    ],
)
def test_computed_kv_is_carried_where_it_pays_or_as_configured(
    wanted: int | None, old_layers: int, new_layers: int, expected: int
) -> None:
    old, new = (obtained(unified=False, n_gpu_layers=n) for n in (old_layers, new_layers))
    assert limit(wanted, old, new) == expected


def test_cells_that_were_asked_for_stay() -> None:
    config = pinned(ModelConfig(kv_cells=30_000), obtained(unified=True))
    assert config.kv_cells == 30_000


def test_a_second_worker_does_with_no_fewer_layers_on_the_gpu() -> None:
    assert pinned(ModelConfig(), obtained(unified=True, n_gpu_layers=20)).min_gpu_layers == 20
    assert pinned(ModelConfig(), None) == ModelConfig()


def test_another_model_is_not_cut_for_the_memory_that_the_one_before_holds() -> None:
    wanted = ModelConfig(n_gpu_layers=12)
    assert with_all_gpu_layers(wanted, obtained(unified=True, n_gpu_layers=20)).min_gpu_layers == 12
    assert with_all_gpu_layers(wanted, obtained(unified=True)) == wanted
    assert with_all_gpu_layers(wanted, None) == wanted
