"""The device's top-k in llama.cpp's own graphs, computed by its CPU backend."""

import ctypes
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llama_cpp.llama_cpp as lc
import numpy as np
import pytest

from engine_worker.backend.candidates import ChangedLogits, RowMasks
from engine_worker.backend.llama import loading
from engine_worker.backend.llama.backend import LlamaBackend
from engine_worker.backend.llama.device_top_k import (
    MIN_ROWS,
    WIDEST,
    DeviceTopK,
    Found,
    K,
    block_of,
    candidates_from_device,
)
from engine_worker.backend.llama.finders import graph_finders
from engine_worker.backend.port import Batch
from engine_worker.sampling.batch import MAX_LEFT_OUT, BatchSampler, Pick, prepare
from engine_worker.sampling.sampler import Sampler
from gpufc.config import KvUnified, ModelConfig
from gpufc.sampling import SamplingParams
from tests.engine_worker.backend.decoding import decode
from tests.engine_worker.sampling.batches import (
    FoundByDevice,
    Recorder,
    Rows,
    check,
    params,
    rows,
)
from tests.engine_worker.sampling.masks import forbidding

N_SEQUENCES = 40
PROMPT = [1, 4093, 314, 253, 2070, 30]


@pytest.fixture(
    scope="module", params=[KvUnified.TRUE, KvUnified.FALSE], ids=["unified", "streams"]
)
def backend(request: pytest.FixtureRequest, model_path: Path) -> Iterator[LlamaBackend]:
    loaded = as_beside_a_device(model_path, request.param)
    yield loaded
    loaded.close()


def as_beside_a_device(model_path: Path, layout: KvUnified) -> LlamaBackend:
    """A backend on the CPU with the finders that it would have beside a device."""

    def offered(bindings: Any, n_vocab: int, *_: int, **__: bool) -> tuple[DeviceTopK, ...]:
        finder = DeviceTopK.of(bindings, n_vocab)
        assert finder is not None
        return (finder,)

    config = ModelConfig(model_path=str(model_path), n_ctx=64, kv_unified=layout, n_threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "graph_finders", offered)
        return LlamaBackend.load(config, N_SEQUENCES, lambda _: None)


def found_in(backend: LlamaBackend) -> Found | None:
    """The tokens that the device has found in the last logits."""
    (finder,) = backend.finders(1)
    assert isinstance(finder, DeviceTopK)
    return finder.found()


@pytest.fixture(autouse=True)
def _empty(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "backend" in request.fixturenames:
        for sequence in range(N_SEQUENCES):
            request.getfixturevalue("backend").remove(sequence)


def one_each(n_sequences: int, position: int = 0, first: int = 0) -> Batch:
    """A token of each sequence from the `first` on."""
    return Batch(
        tokens=[1000 + 7 * number + position for number in range(n_sequences)],
        positions=[position] * n_sequences,
        sequences=list(range(first, first + n_sequences)),
        outputs=[True] * n_sequences,
    )


@pytest.mark.model
def test_the_first_of_each_row_by_rising_id_and_its_sum(backend: LlamaBackend) -> None:
    for position, n_rows in enumerate([MIN_ROWS, 33, 33, N_SEQUENCES, MIN_ROWS]):
        logits = decode(backend, one_each(n_rows, position))
        first = found_in(backend)
        assert first is not None
        assert first.ids.shape == first.logits.shape == (n_rows, K)
        assert (np.take_along_axis(logits, first.ids, axis=1) == first.logits).all()
        assert (np.diff(first.ids) > 0).all()
        assert (np.sort(first.logits) == np.sort(logits)[:, -K:]).all()
        np.testing.assert_allclose(first.sums, logits.sum(axis=1, dtype=np.float64), rtol=1e-3)


@pytest.mark.model
def test_there_is_none_where_few_rows_or_several_passes_were_computed(
    backend: LlamaBackend,
) -> None:
    decode(backend, one_each(MIN_ROWS - 1))
    assert found_in(backend) is None
    prompt = Batch(PROMPT, list(range(6)), [N_SEQUENCES - 1] * 6, [False] * 5 + [True])
    mixed = one_each(20, position=1)
    for name in ("tokens", "positions", "sequences", "outputs"):
        getattr(mixed, name).extend(getattr(prompt, name))
    mixed.chunks = {N_SEQUENCES - 1}
    decode(backend, mixed)
    assert found_in(backend) is None
    decode(backend, one_each(20, position=2))
    assert found_in(backend) is not None


@pytest.mark.model
def test_prompts_ahead_of_the_last_pass_leave_it_its_own(backend: LlamaBackend) -> None:
    for position in range(2):
        mixed = one_each(20, position)
        start = 6 * position
        mixed.tokens += PROMPT
        mixed.positions += range(start, start + 6)
        mixed.sequences += [20] * 6
        mixed.outputs += [False] * 5 + [True]
        mixed.chunks, mixed.in_one_pass = {20}, True
        logits, first = decode(backend, mixed), found_in(backend)
        assert first is not None
        assert first.ids.shape == (21, K)
        assert (np.take_along_axis(logits, first.ids, axis=1) == first.logits).all()
        assert (np.sort(first.logits) == np.sort(logits)[:, -K:]).all()


@pytest.mark.model
def test_a_device_that_lacks_an_operator_is_not_asked(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeviceTopK, "_supports", lambda *_: False)
    unable = as_beside_a_device(model_path, KvUnified.FALSE)
    decode(unable, one_each(20))
    assert found_in(unable) is None
    unable.close()


@pytest.mark.model
def test_sequences_that_take_two_passes_have_none_or_the_right_one(backend: LlamaBackend) -> None:
    apart = one_each(2 * MIN_ROWS)
    apart.sequences = [*range(MIN_ROWS), *range(MIN_ROWS + 3, 2 * MIN_ROWS + 3)]
    logits, first = decode(backend, apart), found_in(backend)
    assert (first is None) is not backend.facts.unified
    assert first is None or (np.take_along_axis(logits, first.ids, axis=1) == first.logits).all()


@pytest.mark.model
def test_the_same_tokens_are_chosen_with_it_and_without(backend: LlamaBackend) -> None:
    with_it = BatchSampler(backend.facts.n_vocab, 1, backend.finders(1))
    without = BatchSampler(backend.facts.n_vocab, 1)
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 0.0},
        {"ignore_eos": True},
        {"repeat_penalty": 1.3},
        {"top_k": 0},
        {"logit_bias": ((9, 20.0),)},
    ]
    masks = np.random.default_rng(1).integers(-(2**31), 2**31, (24, 49152 // 32), np.int32)
    for position, n_kinds in enumerate([1, 3, 4, 5, 6]):
        samplers = [
            Sampler(SamplingParams(seed=row, **kinds[row % n_kinds]), 49152, backend.end_tokens)
            for row in range(24)
        ]
        logits = decode(backend, one_each(24, position))
        masked = [masks[row] if row % n_kinds == position else None for row in range(24)]
        picks = [
            Pick(one, PROMPT, len(PROMPT), 0, position, mask)
            for one, mask in zip(samplers, masked, strict=True)
        ]
        assert with_it.choose(logits, prepare(picks)) == without.choose(logits, prepare(picks))
    with_it.close()
    without.close()


@pytest.mark.parametrize(
    ("n_vocab", "block"),
    [(32_000, 20), (49_152, 24), (50_257, 29), (128_256, 48), (151_936, 64), (262_144, 64)],
)
def test_blocks_divide_the_vocabulary(n_vocab: int, block: int) -> None:
    assert block_of(n_vocab, K) == block
    assert n_vocab % block == 0
    assert n_vocab // block + K * block <= WIDEST


@pytest.mark.parametrize("n_vocab", [1, K, 49_157, 100])
def test_some_vocabularies_have_none(n_vocab: int) -> None:
    assert block_of(n_vocab, K) is None
    assert DeviceTopK.of(lc, n_vocab) is None


def test_a_library_without_ggml() -> None:
    assert DeviceTopK.of(SimpleNamespace(_lib=ctypes.CDLL(None)), 49_152) is None


@pytest.mark.parametrize(
    ("whole", "n_sequences"), [(False, MIN_ROWS), (True, MIN_ROWS - 1), (True, MIN_ROWS)]
)
def test_it_is_offered_where_the_device_has_all_layers_and_many_slots(
    whole: bool, n_sequences: int
) -> None:
    found = graph_finders(lc, 49_152, n_sequences, whole=whole)
    assert bool(found) == (whole and n_sequences >= MIN_ROWS)
    for finder in found:
        finder.close()


# whether the found tokens suffice


NO_CHANGE = ChangedLogits(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32))


def found_of(logits: Rows, n_found: int = K) -> Found:
    ids = np.sort(logits.argsort(axis=1)[:, -n_found:], axis=1)
    return Found(ids, np.take_along_axis(logits, ids, axis=1), logits.sum(axis=1))


@pytest.mark.parametrize("n_odd", [MAX_LEFT_OUT, MAX_LEFT_OUT + 1])
@pytest.mark.parametrize(
    "odd", [{"top_k": 200}, {"logit_bias": ((7, 5.0),)}, {"repeat_penalty": 10.0}]
)
def test_rows_that_need_more_than_was_found_are_left_out_by_themselves(
    odd: dict[str, Any], n_odd: int
) -> None:
    logits = rows(20, 1000)
    likeliest = [row.argsort()[-60:].tolist() for row in logits]
    device = Recorder(FoundByDevice())
    batch = BatchSampler(1000, 1, (device,))
    wanted = [params(seed=row, **(odd if row < n_odd else {})) for row in range(20)]
    check(batch, logits, wanted, likeliest, [])
    assert device.answered == [list(range(n_odd, 20))]
    batch.close()


def test_a_masked_row_with_too_few_allowed_tokens_among_the_found_is_unseen_in_part() -> None:
    logits = rows(3, 1000)
    found = found_of(logits)
    enough, too_few = found.ids[0, : K - 41].tolist(), found.ids[1, : K - 39].tolist()
    words = np.stack([forbidding(1000, enough), forbidding(1000, too_few)])
    masks, least = RowMasks(np.array([0, 1]), words), found.logits[1].min()
    candidates = candidates_from_device(logits, found, np.full(3, 40), NO_CHANGE, masks)
    assert candidates is not None
    assert candidates.rows.tolist() == [0, 1, 2]
    assert (candidates.logits[0] > -np.inf).sum() == 41
    assert candidates.counts[1] == (candidates.logits[1] > -np.inf).sum() == 39
    assert candidates.unseen is not None
    assert candidates.unseen.tolist() == [-np.inf, least, -np.inf]


@pytest.mark.parametrize("k", [1, 40])
def test_tokens_found_in_other_logits_are_not_believed(k: int) -> None:
    logits = rows(20, 1000)
    asked = np.full(20, k)
    assert candidates_from_device(logits, found_of(logits), asked, NO_CHANGE, None) is not None
    stale = found_of(logits[::-1].copy())
    assert candidates_from_device(logits, stale, asked, NO_CHANGE, None) is None


def test_too_few_found_tokens_are_not_taken_for_all() -> None:
    logits = rows(20, 1000)
    found = found_of(logits, 30)
    assert candidates_from_device(logits, found, np.full(20, 30), NO_CHANGE, None) is None
    assert candidates_from_device(logits, found, np.full(20, 29), NO_CHANGE, None) is not None
