import numpy as np
import pytest

from engine_worker.embedding.vectors import embedding, score


def read(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<f4")


def test_an_embedding_has_length_one() -> None:
    assert read(embedding(np.array([3, 0, 4], np.float32))) == pytest.approx([0.6, 0, 0.8])


def test_a_shortened_embedding_has_length_one_again() -> None:
    assert read(embedding(np.array([3, 4, 100], np.float32), 2)) == pytest.approx([0.6, 0.8])


def test_a_vector_of_zeros_stays_one() -> None:
    assert list(read(embedding(np.zeros(3, np.float32)))) == [0, 0, 0]


def test_large_numbers_do_not_overflow() -> None:
    assert read(embedding(np.array([1e30, 0], np.float32))) == pytest.approx([1, 0])


@pytest.mark.parametrize(("logit", "expected"), [(0, 0.5), (2, 0.8807971), (-2000, 0), (2000, 1)])
def test_one_logit_becomes_a_relevance(logit: float, expected: float) -> None:
    assert read(score(np.array([logit], np.float32))) == pytest.approx([expected], abs=1e-6)


def test_of_several_probabilities_the_first_one_counts() -> None:
    assert read(score(np.array([0.75, 0.25], np.float32))) == pytest.approx([0.75])
