"""Placeholder until the vectorised one arrives."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from engine_worker.sampling import Sampler
from gpufc.errors import RequestError


class Pick(Struct, frozen=True):
    sampler: Sampler
    history: Sequence[int]
    n_history: int
    choice: int
    position: int


class BatchSampler:
    def __init__(self, n_vocab: int, n_threads: int) -> None:
        pass

    def choose(
        self, logits: NDArray[np.float32], picks: Sequence[Pick]
    ) -> list[int | RequestError]:
        found: list[int | RequestError] = []
        for row, pick in zip(logits, picks, strict=True):
            try:
                history = pick.history[: pick.n_history]
                found.append(pick.sampler.choose(row, history, pick.choice, pick.position))
            except RequestError as err:
                found.append(err)
        return found
