"""Batches of rows to choose from, and the chosen tokens compared with the plain chain's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import llama_cpp.llama_cpp as lc
import numpy as np
import pytest
from numpy.typing import NDArray

from engine_worker.backend.candidates import CandidateFinder, Candidates, MaskWords
from engine_worker.backend.llama.bindings import library_of
from engine_worker.sampling.batch import BatchSampler, Pick, prepare
from engine_worker.sampling.sampler import Sampler
from gpufc.errors import RequestError
from gpufc.sampling import SamplingParams
from tests.engine_worker.sampling.aligned_logits import aligned
from tests.engine_worker.sampling.plain_sampler import plain_choice

Rows = NDArray[np.float32]


def columns(n_vocab: int, n_threads: int) -> Sequence[CandidateFinder]:
    """The sampler's own finders only."""
    return ()


def host_top_k(n_vocab: int, n_threads: int) -> Sequence[CandidateFinder]:
    from engine_worker.backend.llama.host_top_k import HostTopK

    finder = HostTopK.of(library_of(lc), n_vocab, n_threads, min_rows=2)
    assert finder is not None
    return (finder,)


def device_top_k(n_vocab: int, n_threads: int) -> Sequence[CandidateFinder]:
    return (FoundByDevice(),)


class FoundByDevice:
    """`DeviceTopK` beside a device that finds up to `n_found` tokens of each row."""

    def __init__(self, n_found: int = 64) -> None:
        self._n_found = n_found

    def find(self, logits: Rows, *arguments: Any) -> Candidates | None:
        from engine_worker.backend.llama.device_top_k import Found, candidates_from_device

        k = min(self._n_found, logits.shape[1])
        ids = np.sort((-logits).argsort(axis=1)[:, :k], axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            found = Found(ids, np.take_along_axis(logits, ids, axis=1), logits.sum(axis=1))
        return candidates_from_device(logits, found, *arguments)


FINDERS: dict[str, Callable[[int, int], Sequence[CandidateFinder]]] = {
    "columns": columns,
    "host_top_k": host_top_k,
    "device_top_k": device_top_k,
}
"""The finders that are asked before the sampler's own, by name."""


class Recorder:
    """Records the rows that a finder is asked for, and those that it answers."""

    def __init__(self, finder: CandidateFinder) -> None:
        self._finder = finder
        self.asked: list[list[int]] = []
        self.answered: list[list[int]] = []

    def find(self, logits: Rows, k: Any, *arguments: Any) -> Candidates | None:
        self.asked.append(k.nonzero()[0].tolist())
        found = self._finder.find(logits, k, *arguments)
        self.answered.append([] if found is None else found.rows.tolist())
        return found


def make(n_vocab: int, n_threads: int, finder: str) -> BatchSampler:
    return BatchSampler(n_vocab, n_threads, FINDERS[finder](n_vocab, n_threads))


def params(**given_params: Any) -> SamplingParams:
    return SamplingParams(**{"seed": 1, **given_params})


def rows(n_rows: int, n_vocab: int, seed: int = 0, scale: float = 3.0) -> Rows:
    generator = np.random.default_rng(seed)
    return aligned((generator.standard_normal((n_rows, n_vocab)) * scale).astype(np.float32))


def pick(
    wanted: SamplingParams,
    n_vocab: int,
    history: list[int],
    end: list[int],
    mask: MaskWords | None = None,
) -> Pick:
    sampler = Sampler(wanted, n_vocab, end)
    return Pick(sampler, history, len(history), choice=2, position=len(history), mask=mask)


@contextmanager
def each_finder(n_vocab: int, n_threads: int) -> Iterator[dict[str, BatchSampler]]:
    """A sampler for each kind of finder, by the kind's name."""
    with ExitStack() as stack:
        made = {finder: make(n_vocab, n_threads, finder) for finder in FINDERS}
        for batch in made.values():
            stack.callback(batch.close)
        yield made


def check(
    batch: BatchSampler,
    logits: Rows,
    wanted: list[SamplingParams],
    histories: list[list[int]],
    end: list[int],
) -> None:
    """`check_each` with one sampler."""
    check_each({"": batch}, logits, wanted, histories, end)


def check_each(
    batches: Mapping[str, BatchSampler],
    logits: Rows,
    wanted: list[SamplingParams],
    histories: list[list[int]],
    end: list[int],
    masks: Sequence[MaskWords | None] | None = None,
) -> None:
    """Choose for all rows with each of `batches`, together and each by itself. Compare every row
    with the plain chain and with `Sampler.choose`."""
    n_vocab = logits.shape[1]
    given, logits = logits, aligned(logits)
    masks = masks or [None] * len(wanted)
    picks = [
        pick(row_params, n_vocab, history, end, mask)
        for row_params, history, mask in zip(wanted, histories, masks, strict=True)
    ]
    expected: list[int | type[RequestError]] = []
    for row, row_params, history, one in zip(logits, wanted, histories, picks, strict=True):
        token = plain_choice(
            row_params,
            row,
            history,
            end_tokens=end,
            choice=2,
            position=len(history),
            mask=one.mask,
        )
        if token is None:
            with pytest.raises(RequestError) as caught:
                one.sampler.choose(row, history, 2, len(history), one.mask)
            expected.append(caught.type)
        else:
            assert one.sampler.choose(row, history, 2, len(history), one.mask) == token
            expected.append(token)
    for finder, batch in batches.items():
        together = batch.choose(logits, prepare(picks))
        alone = [
            batch.choose(logits[row : row + 1], prepare([one]))[0] for row, one in enumerate(picks)
        ]
        assert (given == logits).all()
        for chosen in (together, alone):
            for row_params, token, found in zip(wanted, expected, chosen, strict=True):
                got = type(found) if isinstance(found, RequestError) else found
                assert got == token, (finder, row_params, chosen is alone)
