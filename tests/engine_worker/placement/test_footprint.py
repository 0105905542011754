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
    assert (model.n_layers, model.bytes_per_cell, model.n_heads) == (0, 1, 1)


def test_without_flash_attention_each_head_has_a_score_for_each_cell() -> None:
    model = Footprint(layer_bytes=(), output_bytes=0, cell_bytes=(), n_heads=9)
    assert model.score_bytes(128, flash=True) == 256
    assert model.score_bytes(128, flash=False) == 128 * (4 + 9 * 6)
