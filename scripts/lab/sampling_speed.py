"""What choosing the tokens of one engine step costs, without a model: milliseconds of a step.

Random logits, from several matrices in turn so that they are not in the cache, as those of a model
would not be. For each parameter set and number of threads: least and median wall time of
`BatchSampler.choose`, by itself and with ggml's top-k, and the same for `Sampler.choose` row by
row.
"""

import argparse
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import llama_cpp.llama_cpp as lc  # before numpy: see engine_worker/__main__.py

import numpy as np  # isort: skip
from numpy.typing import NDArray

from engine_worker.backend.llama.host_top_k import GgmlTopK, aligned_memory
from engine_worker.sampling.batch import BatchSampler, Pick, prepare
from engine_worker.sampling.sampler import Sampler
from gpufc.sampling import SamplingParams

Matrix = NDArray[np.float32]

KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "greedy": {"temperature": 0.0},
    "ignore_eos": {"ignore_eos": True},
    "repeat_penalty 1.1": {"repeat_penalty": 1.1},
    "top_k 0": {"top_k": 0},
}
END = [2]
N_MATRICES = 4
N_HISTORY = 200


def main() -> None:
    options = _options()
    generator = np.random.default_rng(0)
    shape = (options.rows, options.vocabulary)
    matrices = [
        _aligned(generator.standard_normal(shape, np.float32) * 3) for _ in range(N_MATRICES)
    ]
    history = generator.integers(0, options.vocabulary, N_HISTORY).tolist()
    for name, kind in KINDS.items():
        picks = [
            Pick(
                Sampler(SamplingParams(seed=row, **kind), options.vocabulary, END),
                history,
                N_HISTORY,
                choice=0,
                position=row,
            )
            for row in range(options.rows)
        ]
        _report(f"{name}, row by row", options.steps, matrices, lambda m, p=picks: _each(m, p))
        for n_threads, by_ggml in product(options.threads, (False, True)):
            top_k = GgmlTopK.of(lc._lib, options.vocabulary, n_threads) if by_ggml else None
            batch = BatchSampler(options.vocabulary, n_threads, top_k)
            _report(
                f"{name}, {n_threads} threads{', ggml' if by_ggml else ''}",
                options.steps,
                matrices,
                lambda m, b=batch, p=picks: b.choose(m, prepare(p)),
            )
            batch.close()


def _aligned(logits: Matrix) -> Matrix:
    """A copy that lies as a backend's logits do."""
    copied = aligned_memory(logits.nbytes).view(np.float32).reshape(logits.shape)
    copied[:] = logits
    return copied


def _each(logits: Matrix, picks: list[Pick]) -> None:
    for row, pick in zip(logits, picks, strict=True):
        pick.sampler.choose(row, pick.history, pick.choice, pick.position)


def _report(
    title: str, n_steps: int, matrices: list[Matrix], step: Callable[[Matrix], object]
) -> None:
    took = []
    for number in range(n_steps):
        began = time.perf_counter()
        step(matrices[number % len(matrices)])
        took.append((time.perf_counter() - began) * 1000)
    print(f"{title:32} least {min(took):7.3f} ms, median {median(took):7.3f} ms", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    return parser.parse_args()


if __name__ == "__main__":
    main()
