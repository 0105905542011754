from typing import Any

import pytest

from engine_worker.placement.footprint import Footprint, footprint
from gpufc.config import KvType
from tests.engine_worker.model_file.headers import header

SMOLLM2 = {
    "block_count": 30,
    "embedding_length": 576,
    "attention__head_count": 9,
    "attention__head_count_kv": 3,
}


def test_bytes_of_a_cell_are_layers_times_heads_times_both_dimensions() -> None:
    assert footprint(header(**SMOLLM2)).bytes_per_cell == 30 * 3 * (64 + 64) * 2


@pytest.mark.parametrize(
    ("kind", "share"),
    [(KvType.F32, 2), (KvType.BF16, 1), (KvType.Q8_0, 34 / 64), (KvType.Q4_0, 18 / 64)],
)
def test_packed_caches_take_what_their_blocks_take(kind: KvType, share: float) -> None:
    plain = footprint(header(**SMOLLM2)).bytes_per_cell
    assert footprint(header(**SMOLLM2), kind, kind).bytes_per_cell == plain * share
    assert footprint(header(**SMOLLM2), kind).bytes_per_cell == plain * (1 + share) / 2


def test_heads_may_differ_by_layer_and_dimensions_be_given() -> None:
    hybrid = footprint(
        header(
            block_count=3,
            embedding_length=64,
            attention__head_count=4,
            attention__head_count_kv=(0, 2, 0),
            attention__key_length=8,
            attention__value_length=4,
        )
    )
    assert hybrid.cell_bytes == (0, 2 * 12 * 2, 0)
    assert hybrid.device_cell_bytes(1) == 0
    assert hybrid.device_cell_bytes(2) == hybrid.bytes_per_cell


def test_the_last_layers_and_the_output_are_the_device_s() -> None:
    sizes = {"token_embd": 500, "blk.0": 10, "blk.1": 20, "output": 300, "output_norm": 1}
    model = footprint(header(tensor_bytes=sizes, block_count=2))
    assert [model.device_bytes(n) for n in (0, 1, 2)] == [0, 321, 331]


def test_embeddings_that_are_the_output_too_are_copied_to_the_device() -> None:
    sizes = {"token_embd": 500, "blk.0": 10, "output_norm": 1}
    assert footprint(header(tensor_bytes=sizes, block_count=1)).device_bytes(1) == 511


def test_a_header_without_figures_takes_something_all_the_same() -> None:
    model = footprint(header())
    assert (model.n_layers, model.bytes_per_cell, model.n_heads) == (0, 1, 0)


@pytest.mark.parametrize("heads", [{}, {"attention__head_count": 0}])
def test_a_recurrent_model_has_states_and_no_cells(heads: dict[str, int]) -> None:
    """Mamba 2.8B."""
    mamba = footprint(
        header(
            state_layers=frozenset(range(64)),
            block_count=64,
            embedding_length=2560,
            ssm__conv_kernel=4,
            ssm__inner_size=5120,
            ssm__state_size=16,
            **heads,
        )
    )
    assert not mamba.has_cells
    assert mamba.state_bytes == (4 * (3 * 5120 + 16 * 5120),) * 64


def test_a_layer_with_a_state_and_no_keys_has_no_cells() -> None:
    """Qwen3-Next: one figure for all layers, of which every fourth has keys."""
    model = footprint(
        header(
            state_layers=frozenset({0, 1, 2}),
            key_layers=frozenset({3}),
            block_count=4,
            embedding_length=2048,
            attention__head_count=16,
            attention__head_count_kv=2,
            attention__key_length=256,
            attention__value_length=256,
            ssm__conv_kernel=4,
            ssm__inner_size=4096,
            ssm__state_size=128,
            ssm__group_count=16,
        )
    )
    assert model.cell_bytes == (0, 0, 0, 2 * 512 * 2)
    assert model.state_bytes == (4 * (3 * (4096 + 2 * 16 * 128) + 128 * 4096),) * 3 + (0,)
    assert model.device_state_bytes(2) == model.state_bytes[2]


NEMOTRON_H: dict[str, Any] = {
    "state_layers": frozenset({0}),
    "key_layers": frozenset({2}),
    "block_count": 4,
    "embedding_length": 64,
    "attention__head_count": 4,
    "attention__head_count_kv": (0, 2, 2, 0),
    "feed_forward_length": (0, 128, 0, 128),
}


def test_a_layer_that_is_a_feed_forward_network_alone_has_no_cells() -> None:
    hybrid = footprint(header(architecture="nemotron_h", **NEMOTRON_H))
    assert hybrid.cell_bytes == (0, 0, 2 * 32 * 2, 0)
    assert all(footprint(header(architecture="falcon-h1", **NEMOTRON_H)).cell_bytes[1:3])


@pytest.mark.parametrize(("n_drafting", "n_with_cells"), [(0, 30), (1, 29), (30, 30)])
def test_layers_that_draft_have_no_cells_unless_there_are_no_others(
    n_drafting: int, n_with_cells: int
) -> None:
    each = 3 * (64 + 64) * 2
    model = footprint(header(architecture="glm4moe", **SMOLLM2, nextn_predict_layers=n_drafting))
    assert model.cell_bytes == (each,) * n_with_cells + (0,) * (30 - n_with_cells)
    # of other architectures llama.cpp makes cells for all layers
    kept = footprint(header(architecture="bailingmoe3", **SMOLLM2, nextn_predict_layers=n_drafting))
    assert kept.cell_bytes == (each,) * 30


def test_without_flash_attention_each_head_has_a_score_for_each_cell() -> None:
    model = Footprint(layer_bytes=(), output_bytes=0, cell_bytes=(), state_bytes=(), n_heads=9)
    assert model.score_bytes(128, flash=True) == 256
    assert model.score_bytes(128, flash=False) == 128 * (4 + 9 * 6)
