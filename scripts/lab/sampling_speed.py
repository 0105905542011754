"""The time to choose the tokens of one engine step, without a model.

The logits are random. They come from several matrices in turn, so that they are not in the cache,
as a model's logits would not be. For each parameter set and number of threads it prints the least
and the median wall time of `BatchSampler.choose`, with the sampler's own finders and with ggml's
top-k, and that of `Sampler.choose` row by row. With `--masks` so many rows have a mask, which
allows a random share of the tokens.
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

from engine_worker.backend.candidates import MaskWords
from engine_worker.backend.llama.bindings import library_of
from engine_worker.backend.llama.host_top_k import HostTopK, aligned_memory
from engine_worker.sampling.batch import BatchSampler, Pick, prepare
from engine_worker.sampling.sampler import Sampler
from gpufc.sampling import SamplingParams, samplers_of

Matrix = NDArray[np.float32]

KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "greedy": {"temperature": 0.0},
    "ignore_eos": {"ignore_eos": True},
    "repeat_penalty 1.1": {"repeat_penalty": 1.1},
    "top_k 0": {"top_k": 0},
    "top_n_sigma 1": {"top_n_sigma": 1.0},
    "xtc": {"xtc_probability": 0.5},
    "dry": {"dry_multiplier": 0.8},
    "temperature first": {"samplers": samplers_of("tkypm")},
    "mirostat 2": {"mirostat": 2},
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
    masks = [
        _mask(generator, options) if row < options.masks else None for row in range(options.rows)
    ]
    for name, kind in KINDS.items():
        picks = [
            Pick(
                Sampler(SamplingParams(seed=row, **kind), options.vocabulary, END),
                history,
                N_HISTORY,
                choice=0,
                position=row,
                mask=masks[row],
            )
            for row in range(options.rows)
        ]
        _report(f"{name}, row by row", options.steps, matrices, lambda m, p=picks: _each(m, p))
        for n_threads, by_ggml in product(options.threads, (False, True)):
            host = HostTopK.of(library_of(lc), options.vocabulary, n_threads) if by_ggml else None
            batch = BatchSampler(options.vocabulary, n_threads, () if host is None else (host,))
            _report(
                f"{name}, {n_threads} threads{', ggml' if by_ggml else ''}",
                options.steps,
                matrices,
                lambda m, b=batch, p=picks: b.choose(m, prepare(p)),
            )
            batch.close()
            if host is not None:
                host.close()


def _mask(generator: np.random.Generator, options: argparse.Namespace) -> MaskWords:
    allowed = generator.random(-(-options.vocabulary // 32) * 32) < options.allowed
    return np.packbits(allowed, bitorder="little").view(np.int32)


def _aligned(logits: Matrix) -> Matrix:
    """A copy in memory that is aligned as a backend's logits are."""
    copied = aligned_memory(logits.nbytes).view(np.float32).reshape(logits.shape)
    copied[:] = logits
    return copied


def _each(logits: Matrix, picks: list[Pick]) -> None:
    for row, pick in zip(logits, picks, strict=True):
        pick.sampler.choose(row, pick.history, pick.choice, pick.position, pick.mask)


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
    parser.add_argument("--masks", type=int, default=0, help="rows with a mask")
    parser.add_argument("--allowed", type=float, default=0.5, help="share of tokens a mask allows")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    return parser.parse_args()


if __name__ == "__main__":
    main()
