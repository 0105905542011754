"""Random models: the type of their matrices, weights that keep variance, and rows that differ."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from scripts.lab.random_model import TYPES, Shape, make
from tests.models.making import made

SHAPE = Shape(n_layers=2, n_embd=256, n_ff=448, n_heads=4, n_kv_heads=2)
STORED = {"q4_0": gguf.GGMLQuantizationType.Q4_0, "f16": gguf.GGMLQuantizationType.F16}


@pytest.fixture(params=list(TYPES))
def type_(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def matrices(type_: str, tmp_path: Path) -> list[gguf.ReaderTensor]:
    path = tmp_path / "random.gguf"
    make(made("llama"), path, SHAPE, TYPES[type_], np.random.default_rng(1))
    return [tensor for tensor in gguf.GGUFReader(path).tensors if len(tensor.shape) == 2]


def test_all_matrices_are_of_the_type(type_: str, matrices: list[gguf.ReaderTensor]) -> None:
    assert len(matrices) == 1 + 7 * SHAPE.n_layers
    assert {matrix.tensor_type for matrix in matrices} == {STORED[type_]}


def test_a_matrix_keeps_the_variance_of_what_it_is_multiplied_with(
    matrices: list[gguf.ReaderTensor],
) -> None:
    for matrix in matrices:
        weights = gguf.dequantize(matrix.data, matrix.tensor_type)
        assert weights.std() * weights.shape[1] ** 0.5 == pytest.approx(1, abs=0.05), matrix.name


def test_no_two_rows_and_no_two_matrices_are_equal(matrices: list[gguf.ReaderTensor]) -> None:
    rows = [row.tobytes() for matrix in matrices for row in matrix.data]
    assert len(set(rows)) == len(rows)
