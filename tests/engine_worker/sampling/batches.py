"""Batches of rows to choose from, and what is chosen held against the plain chain."""

from typing import Any

import llama_cpp.llama_cpp as lc
import numpy as np
import pytest
from numpy.typing import NDArray

from engine_worker.backend.llama.host_top_k import GgmlTopK
from engine_worker.backend.port import First
from engine_worker.sampling.batch import (
    BatchSampler,
    Pick,
    Prepared,
    prepare,
)
from engine_worker.sampling.sampler import Sampler
from gpufc.errors import InvalidRequest, RequestError
from gpufc.sampling import SamplingParams
from tests.engine_worker.sampling.aligned_logits import aligned
from tests.engine_worker.sampling.plain_sampler import plain_choice

Rows = NDArray[np.float32]


class FoundBeforehand(BatchSampler):
    """With a backend that has found the first tokens of all rows, as many as it can."""

    N_FIRST = 64

    def __init__(self, n_vocab: int) -> None:
        super().__init__(n_vocab, 1, first=lambda: self.found)
        self.found: First | None = None

    def choose(self, logits: Rows, prepared: Prepared) -> list[int | RequestError]:
        self.found = first_of(logits, min(self.N_FIRST, logits.shape[1]))
        return super().choose(logits, prepared)


def first_of(logits: Rows, k: int) -> First:
    ids = np.sort((-logits).argsort(axis=1)[:, :k], axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        return First(ids, np.take_along_axis(logits, ids, axis=1), logits.sum(axis=1))


def make(n_vocab: int, n_threads: int, finder: str) -> BatchSampler:
    if finder == "beforehand":
        return FoundBeforehand(n_vocab)
    top_k = GgmlTopK.of(lc._lib, n_vocab, n_threads) if finder == "ggml" else None
    assert top_k is not None or finder == "columns"
    return BatchSampler(n_vocab, n_threads, top_k, top_k_rows=2)


def params(**given_params: Any) -> SamplingParams:
    return SamplingParams(**{"seed": 1, **given_params})


def rows(n_rows: int, n_vocab: int, seed: int = 0, scale: float = 3.0) -> Rows:
    generator = np.random.default_rng(seed)
    return aligned((generator.standard_normal((n_rows, n_vocab)) * scale).astype(np.float32))


def pick(wanted: SamplingParams, n_vocab: int, history: list[int], end: list[int]) -> Pick:
    sampler = Sampler(wanted, n_vocab, end)
    return Pick(sampler, history, len(history), choice=2, position=len(history))


def check(
    batch: BatchSampler,
    logits: Rows,
    wanted: list[SamplingParams],
    histories: list[list[int]],
    end: list[int],
) -> None:
    """Chooses for all rows, and holds each against the plain chain and `Sampler.choose`."""
    n_vocab = logits.shape[1]
    given, logits = logits, aligned(logits)
    picks = [
        pick(row_params, n_vocab, history, end)
        for row_params, history in zip(wanted, histories, strict=True)
    ]
    chosen = batch.choose(logits, prepare(picks))
    assert len(chosen) == len(picks)
    assert (given == logits).all()
    for row, row_params, history, one, token in zip(
        logits, wanted, histories, picks, chosen, strict=True
    ):
        expected = plain_choice(
            row_params, row, history, end_tokens=end, choice=2, position=len(history)
        )
        if expected is None:
            assert isinstance(token, InvalidRequest)
            with pytest.raises(InvalidRequest):
                one.sampler.choose(row, history, 2, len(history))
        else:
            assert token == expected, row_params
            assert one.sampler.choose(row, history, 2, len(history)) == expected
