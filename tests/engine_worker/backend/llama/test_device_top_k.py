"""The device's top-k in llama.cpp's own graphs, computed by its CPU backend."""

import ctypes
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llama_cpp.llama_cpp as lc
import numpy as np
import pytest

from engine_worker.backend.llama import loading
from engine_worker.backend.llama.backend import LlamaBackend
from engine_worker.backend.llama.device_top_k import MIN_ROWS, WIDEST, DeviceTopK, K, block_of
from engine_worker.backend.llama.parameters import context_parameters
from engine_worker.backend.port import Batch
from engine_worker.sampling.batch import BatchSampler, Pick, prepare
from engine_worker.sampling.sampler import Sampler
from gpufc.config import KvUnified, ModelConfig
from gpufc.sampling import SamplingParams
from tests.engine_worker.backend.decoding import decode

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
    """Does beside a CPU what it would beside a device."""

    def as_if_whole(*arguments: Any, whole: bool, **named: Any) -> Any:
        params = context_parameters(*arguments, whole=whole, **named)
        found.append(DeviceTopK.of(lc, named["n_vocab"]))
        found[0].attach(params)
        return params

    found: list[Any] = []
    config = ModelConfig(model_path=str(model_path), n_ctx=64, kv_unified=layout, n_threads=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading.parameters, "context_parameters", as_if_whole)
        loaded = LlamaBackend.load(config, N_SEQUENCES, lambda _: None)
    loaded._device_top_k = found[0]
    return loaded


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
        first = backend.first()
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
    assert backend.first() is None
    prompt = Batch(PROMPT, list(range(6)), [N_SEQUENCES - 1] * 6, [False] * 5 + [True])
    mixed = one_each(20, position=1)
    for name in ("tokens", "positions", "sequences", "outputs"):
        getattr(mixed, name).extend(getattr(prompt, name))
    mixed.chunks = {N_SEQUENCES - 1}
    decode(backend, mixed)
    assert backend.first() is None
    decode(backend, one_each(20, position=2))
    assert backend.first() is not None


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
        logits, first = decode(backend, mixed), backend.first()
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
    assert unable.first() is None
    unable.close()


@pytest.mark.model
def test_sequences_that_take_two_passes_have_none_or_the_right_one(backend: LlamaBackend) -> None:
    apart = one_each(2 * MIN_ROWS)
    apart.sequences = [*range(MIN_ROWS), *range(MIN_ROWS + 3, 2 * MIN_ROWS + 3)]
    logits, first = decode(backend, apart), backend.first()
    assert (first is None) is not backend.facts.unified
    assert first is None or (np.take_along_axis(logits, first.ids, axis=1) == first.logits).all()


@pytest.mark.model
def test_the_same_tokens_are_chosen_with_it_and_without(backend: LlamaBackend) -> None:
    with_it = BatchSampler(backend.facts.n_vocab, 1, first=backend.first)
    without = BatchSampler(backend.facts.n_vocab, 1)
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 0.0},
        {"ignore_eos": True},
        {"repeat_penalty": 1.3},
        {"top_k": 0},
        {"logit_bias": ((9, 20.0),)},
    ]
    for position, n_kinds in enumerate([1, 3, 4, 5, 6]):
        samplers = [
            Sampler(SamplingParams(seed=row, **kinds[row % n_kinds]), 49152, backend.end_tokens)
            for row in range(24)
        ]
        logits = decode(backend, one_each(24, position))
        picks = [Pick(one, PROMPT, len(PROMPT), 0, position) for one in samplers]
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
