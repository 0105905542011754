"""The samplers with a module of their own leave the tokens that llama.cpp's own leave."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine_worker.backend.llama.vocabulary import Vocabulary
from engine_worker.sampling.sampler import Sampler
from engine_worker.sampling.samplers.breakers import BreakerStore
from gpufc.sampling import SAMPLERS, SamplingParams, samplers_of
from tests.engine_worker.prompts.vocabularies import load_vocabulary
from tests.engine_worker.sampling.batches import params, rows
from tests.engine_worker.sampling.llama_chain import LlamaChain, Row

N_VOCAB = 600
NEUTRAL: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}
XTC: dict[str, Any] = {"xtc_probability": 1.0, "xtc_threshold": 0.05}
PENALTIES: dict[str, Any] = {"repeat_penalty": 1.3, "frequency_penalty": 0.4}


@pytest.fixture(scope="module")
def vocabulary(model_path: Path) -> Vocabulary:
    return load_vocabulary(model_path)


@pytest.fixture(scope="module")
def store(vocabulary: Vocabulary) -> BreakerStore:
    return BreakerStore(vocabulary, vocabulary.n_tokens)


def row(seed: int, n_vocab: int = N_VOCAB, scale: float = 3.0) -> Row:
    return rows(1, n_vocab, seed, scale)[0]


def history(n: int = 100) -> list[int]:
    return np.random.default_rng(5).integers(0, N_VOCAB, n).tolist()


def compare(wanted: SamplingParams, logits: Row, history: list[int]) -> None:
    chain = LlamaChain(wanted, history, len(logits))
    theirs = chain.distribution(logits)
    chain.close()
    ids, chances = Sampler(wanted, len(logits)).distribution(logits, history)
    assert set(ids.tolist()) == set(theirs), wanted
    for token, chance in zip(ids.tolist(), chances.tolist(), strict=True):
        assert chance == pytest.approx(theirs[token], abs=2e-5), wanted


@pytest.mark.parametrize("scale", [0.5, 3.0, 10.0])
@pytest.mark.parametrize("threshold", [0.01, 0.1, 0.3, 0.5, 0.6])
@pytest.mark.parametrize("before", [{}, {"top_k": 0}, {"top_k": 8, "top_p": 1.0}, NEUTRAL])
def test_xtc(scale: float, threshold: float, before: dict[str, Any]) -> None:
    wanted = params(**before, xtc_probability=1.0, xtc_threshold=threshold)
    compare(wanted, row(7, scale=scale), [])


@pytest.mark.parametrize("spread", [0.5, 1.5, 4.0])
@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("before", [{}, {"temperature": 0.0}, NEUTRAL, {**XTC, "top_k": 0}])
def test_dynamic_temperature(spread: float, exponent: float, before: dict[str, Any]) -> None:
    wanted = params(**before, dynatemp_range=spread, dynatemp_exponent=exponent)
    for scale in (0.5, 3.0, 10.0):
        compare(wanted, row(8, scale=scale), [])


@pytest.mark.parametrize("min_keep", [1, 2, 5, 30, 1000])
@pytest.mark.parametrize(
    "others",
    [
        {},
        {"top_k": 3},
        {"top_k": 0, "min_p": 0.5, "top_p": 1.0},
        {"top_k": 0, "top_p": 0.1, "min_p": 0.0},
        {"typical_p": 0.1},
        {"typical_p": 0.1, "top_k": 0, "min_p": 0.0},
        XTC,
    ],
)
def test_min_keep(min_keep: int, others: dict[str, Any]) -> None:
    for scale in (0.5, 3.0):
        compare(params(**others, min_keep=min_keep), row(9, scale=scale), [])


ORDERS = [
    "t",
    "k",
    "",
    "edskypmxt",
    "tmp",
    "tkypm",
    "ktpkt",
    "xkt",
    "mxts",
    "kse",
    "tke",
    "kpet",
    "etkem",
    "yks",
    "ppt",
]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "others",
    [
        PENALTIES,
        {**XTC, **PENALTIES, "top_n_sigma": 1.5, "top_k": 20},
        {"typical_p": 0.6, "top_k": 5, "temperature": 1.7, "logit_bias": ((3, 5.0),)},
        {"dynatemp_range": 0.5, "top_n_sigma": 2.0, "min_keep": 3, "top_k": 50},
    ],
)
def test_samplers_in_another_order(order: str, others: dict[str, Any]) -> None:
    wanted = params(**others, samplers=samplers_of(order))
    for seed, scale in enumerate((0.5, 3.0)):
        compare(wanted, row(seed, scale=scale), history())


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tau", [0.5, 3.0, 5.0])
@pytest.mark.parametrize("temperature", [0.8, 1.5])
def test_mirostat_over_many_tokens(version: int, tau: float, temperature: float) -> None:
    wanted = params(
        mirostat=version, mirostat_tau=tau, mirostat_eta=0.3, temperature=temperature, **PENALTIES
    )
    chain = LlamaChain(wanted, [], N_VOCAB)
    state = Sampler(wanted, N_VOCAB).state
    for position in range(40):
        logits = row(position, scale=1.0 + position % 4)
        theirs, chosen = chain.sample(logits)
        sampler = Sampler(wanted, N_VOCAB, state=state)
        ids, chances = sampler.distribution(logits, [])
        assert set(ids.tolist()) == set(theirs)
        assert chances == pytest.approx([theirs[token] for token in ids.tolist()], abs=1e-4)
        place = ids.tolist().index(chosen)
        surprise = -np.log2(chances[place])
        state = (state[0] - wanted.mirostat_eta * (float(surprise) - tau),)
    chain.close()


# DRY, with the demo model's vocabulary


def repeating(vocabulary: Vocabulary) -> Iterator[list[int]]:
    """Histories that repeat themselves, and some of their parts."""
    text = 'The cat sat: "a mat" and the cat sat on the mat, so the cat sat on it.\n* Then the cat'
    for given in (text, text.replace(":", " ").replace('"', "'"), text.replace("\n", " ")):
        tokens = vocabulary.tokenize(given, add_special=False, parse_special=False)
        yield tokens
        yield (tokens * 3)[:-4]
    yield [5] * 50
    yield [5, 6] * 40
    yield [1, 2, 3, 4, 1, 2]
    yield []


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"dry_base": 1.2, "dry_allowed_length": 1},
        {"dry_allowed_length": 0, "dry_penalty_last_n": 20},
        {"dry_allowed_length": 5, "dry_penalty_last_n": -1},
        {"dry_penalty_last_n": -1, "dry_base": 3.0},
        {"dry_penalty_last_n": 0},
        {"dry_sequence_breakers": ("cat",)},
        {"dry_sequence_breakers": (" sat on", "mat, so", "\n", "zz"), "dry_penalty_last_n": -1},
        {"dry_sequence_breakers": ("the mat and much more than forty bytes of text", "")},
        {"dry_base": 1.0},
        {"samplers": samplers_of("kdpt"), "top_k": 1000},
        {"samplers": samplers_of("det"), **PENALTIES},
        {"temperature": 0.0},
        {**XTC, **PENALTIES, "top_n_sigma": 2.0},
    ],
)
def test_dry(given: dict[str, Any], vocabulary: Vocabulary, store: BreakerStore) -> None:
    n_vocab = vocabulary.n_tokens
    wanted = params(**{"dry_multiplier": 0.8, "top_p": 1.0, "min_p": 0.0, **given})
    chain = LlamaChain(wanted, [], n_vocab, vocabulary.pointer)
    for seed, tokens in enumerate(repeating(vocabulary)):
        logits = row(seed, n_vocab)
        logits[sorted(set(tokens))] += 12.0
        chain.begin(tokens)
        theirs = chain.distribution(logits)
        ids, chances = Sampler(wanted, n_vocab, tails=store.tails).distribution(logits, tokens)
        assert ids.tolist() == sorted(theirs)
        assert np.allclose(chances, [theirs[token] for token in sorted(theirs)], rtol=0, atol=2e-5)
    chain.close()


def test_every_name_and_letter_of_llama_cpp_is_read() -> None:
    names = ["Penalties", "dry", "top-n-sigma", "topk", "typ-p", "TOP_P", "minp", "xtc", "temp"]
    assert samplers_of(names) == samplers_of("edskypmxt") == SAMPLERS
    assert samplers_of(["nucleus", "typ"]) == samplers_of("py")
    with pytest.raises(ValueError, match="'infill' is no sampler"):
        samplers_of(["top_k", "infill"])
    with pytest.raises(ValueError, match="'i' is no sampler"):
        samplers_of("ki")


def test_names_that_clients_list_beside_llama_cpp_s_change_nothing() -> None:
    listed = [*SAMPLERS[:5], "tfs_z", "typical_p", *SAMPLERS[5:], "adaptive_p"]
    assert samplers_of(listed) == samplers_of("edskypmxta") == SAMPLERS
    assert samplers_of(["top_k", "typical_p"]) == samplers_of("ky")
