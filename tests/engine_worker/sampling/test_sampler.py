import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine_worker.sampling.sampler import Sampler, uniform
from gpufc.errors import InvalidRequest
from gpufc.sampling import SAMPLERS, SamplingParams
from tests.engine_worker.sampling.llama_chain import LlamaChain

N_VOCAB = 1000
Row = NDArray[np.float32]


def row(seed: int, n_vocab: int = N_VOCAB, scale: float = 3.0) -> Row:
    return (np.random.default_rng(seed).standard_normal(n_vocab) * scale).astype(np.float32)


def params(**given: Any) -> SamplingParams:
    return SamplingParams(**{"seed": 1, **given})


NEUTRAL = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}


# llama.cpp's own chain


def grid() -> Iterator[dict[str, Any]]:
    for top_k, typical_p, top_p, min_p in itertools.product(
        (0, 1, 40, 2000), (1.0, 0.7), (1.0, 0.95, 0.3), (0.0, 0.05, 0.5)
    ):
        for temperature in (0.8, 2.0):
            yield {
                "top_k": top_k,
                "typical_p": typical_p,
                "top_p": top_p,
                "min_p": min_p,
                "temperature": temperature,
            }
    for top_n_sigma, top_k, top_p in itertools.product((0.5, 1.0, 3.0), (0, 40), (1.0, 0.95)):
        yield {**NEUTRAL, "top_n_sigma": top_n_sigma, "top_k": top_k, "top_p": top_p}
    yield {"top_n_sigma": 2.0, "repeat_penalty": 1.3, "logit_bias": ((3, 5.0), (7, -50.0))}
    penalties: dict[str, Any] = {"repeat_penalty": 1.3, "frequency_penalty": 0.4}
    yield penalties
    yield {**NEUTRAL, **penalties, "presence_penalty": 0.7, "repeat_last_n": 10}
    yield {**NEUTRAL, **penalties, "presence_penalty": -1.5, "repeat_last_n": -1}
    yield {**NEUTRAL, **penalties, "repeat_last_n": 0}
    yield {**NEUTRAL, "logit_bias": ((3, 5.0), (7, -50.0), (900, 12.5))}
    yield {**penalties, "logit_bias": ((3, 5.0), (7, -50.0)), "repeat_last_n": 5}


@pytest.mark.parametrize("scale", [0.5, 3.0, 10.0])
def test_the_same_tokens_survive_with_the_same_probabilities_as_in_llama_cpp(scale: float) -> None:
    history = [*np.random.default_rng(5).integers(0, N_VOCAB, 100).tolist(), 3, 3, 7, 3]
    for seed, given_params in enumerate(grid()):
        wanted = params(**given_params)
        logits = row(seed, scale=scale)
        chain = LlamaChain(wanted, history, N_VOCAB)
        theirs = chain.distribution(logits)
        chain.close()
        ids, chances = Sampler(wanted, N_VOCAB).distribution(logits, history)
        assert set(ids.tolist()) == set(theirs), given_params
        for token, chance in zip(ids.tolist(), chances.tolist(), strict=True):
            assert chance == pytest.approx(theirs[token], abs=1e-5), given_params


# draws


@pytest.mark.parametrize("position", [0, 17])
def test_draws_have_the_distribution_s_frequencies(position: int) -> None:
    logits = row(3, 50, scale=1.0)
    n_draws = 20_000
    sampler = Sampler(params(**NEUTRAL), 50)
    _, chances = sampler.distribution(logits, [])
    ids = sampler.distribution(logits, [])[0].tolist()
    counts = Counter(
        Sampler(params(**{**NEUTRAL, "seed": seed}), 50).choose(logits, [], 0, position)
        for seed in range(n_draws)
    )
    observed = np.array([counts[token] for token in ids])
    chi_square = float((((observed - n_draws * chances) ** 2) / (n_draws * chances)).sum())
    # 49 degrees of freedom: mean 49, standard deviation 9.9
    assert chi_square < 49 + 5 * 9.9


def test_positions_and_choices_of_one_seed_are_independent() -> None:
    numbers = np.array(
        [uniform(9, choice, position) for choice in range(4) for position in range(5000)]
    )
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    histogram, _ = np.histogram(numbers, bins=20, range=(0, 1))
    assert float(((histogram - 1000) ** 2 / 1000).sum()) < 19 + 5 * 6.2
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03


def test_the_random_number_is_fixed_for_ever() -> None:
    # a running stream may be replayed by a newer version: these must never change
    assert uniform(0, 0, 0) == 0.5213453336981362
    assert uniform(2**63 - 1, 7, 123456) == 0.5267168774734694


@pytest.mark.parametrize("purpose", ["", "again"])
def test_a_sequence_s_random_numbers_are_those_of_its_positions(purpose: str) -> None:
    sampler = Sampler(params(seed=9), N_VOCAB)
    for position in [*range(70), 5, 1_000_000]:
        for choice in (0, 3):
            expected = uniform(9, choice, position, purpose)
            assert sampler.uniform(choice, position, purpose) == expected


# what a choice is made from


def test_greedy_takes_the_largest_and_the_lowest_id_of_equals() -> None:
    logits = np.zeros(N_VOCAB, np.float32)
    logits[[40, 30, 50]] = 4.0
    assert Sampler(params(temperature=0.0), N_VOCAB).choose(logits, [], 0, 0) == 30


def test_top_k_of_equals_keeps_the_lowest_ids() -> None:
    logits = np.zeros(N_VOCAB, np.float32)
    sampler = Sampler(params(**{**NEUTRAL, "top_k": 3}), N_VOCAB)
    assert sampler.distribution(logits, [])[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("top_k", [0, 3])
def test_top_n_sigma_measures_the_finite_logits_of_the_whole_row(top_k: int) -> None:
    logits = np.array([4.0, -np.inf, 2.0, 0.0, -2.0, -4.0], np.float32)  # sigma is 2.83
    for n, kept in ((0.5, [0]), (0.8, [0, 2]), (1.5, [0, 2, 3])):
        sampler = Sampler(params(**{**NEUTRAL, "top_n_sigma": n, "top_k": top_k}), 6)
        assert sampler.distribution(logits, [])[0].tolist() == kept


def test_the_backend_s_row_is_never_modified() -> None:
    logits = row(1)
    before = logits.copy()
    logits.flags.writeable = False
    for temperature in (0.0, 0.8):
        wanted = params(
            temperature=temperature, repeat_penalty=1.5, logit_bias=((1, 3.0),), ignore_eos=True
        )
        Sampler(wanted, N_VOCAB, [2]).choose(logits, [1, 2, 3], 0, 0)
        Sampler(params(temperature=temperature), N_VOCAB).choose(logits, [1, 2, 3], 0, 0)
    assert (logits == before).all()


def test_a_bias_of_minus_100_and_ignore_eos_ban_tokens() -> None:
    logits = np.zeros(4, np.float32)
    logits[0], logits[1] = 1000.0, 500.0
    banning = params(temperature=0.0, logit_bias=((0, -100.0),), ignore_eos=True)
    assert Sampler(banning, 4, [1]).choose(logits, [], 0, 0) == 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_without_any_token_left_is_the_request_s_fault(temperature: float) -> None:
    bans = tuple((token, -100.0) for token in range(5))
    sampler = Sampler(params(temperature=temperature, logit_bias=bans), 5)
    with pytest.raises(InvalidRequest, match="no token to choose") as caught:
        sampler.choose(row(1, 5), [], 0, 0)
    assert caught.value.param == "logit_bias"


@pytest.mark.parametrize("bias", [(N_VOCAB, 1.0), (-1, 1.0), (0, float("nan")), (0, float("inf"))])
def test_biases_that_make_no_sense_are_refused(bias: tuple[int, float]) -> None:
    with pytest.raises(InvalidRequest):
        Sampler(params(logit_bias=(bias,)), N_VOCAB)


wanted_params = st.builds(
    SamplingParams,
    seed=st.integers(0, 2**63 - 1),
    temperature=st.floats(0, 100),
    top_k=st.integers(0, 60),
    top_p=st.floats(0, 1),
    min_p=st.floats(0, 1),
    typical_p=st.floats(0, 1),
    repeat_penalty=st.floats(0, 10, exclude_min=True),
    repeat_last_n=st.integers(-1, 20),
    frequency_penalty=st.floats(-2, 2),
    presence_penalty=st.floats(-2, 2),
    logit_bias=st.lists(st.tuples(st.integers(1, 19), st.floats(-1e300, 1e300)), max_size=5).map(
        tuple
    ),
    top_n_sigma=st.floats(0, 100),
)
rare_params = st.builds(
    SamplingParams,
    seed=st.integers(0, 2**63 - 1),
    temperature=st.floats(0, 100),
    top_k=st.sampled_from([0, 3]),
    top_p=st.floats(0, 1),
    typical_p=st.floats(0, 1),
    repeat_penalty=st.floats(0, 10, exclude_min=True),
    frequency_penalty=st.floats(-2, 2),
    logit_bias=st.lists(st.tuples(st.integers(1, 19), st.floats(-1e300, 1e300)), max_size=5).map(
        tuple
    ),
    top_n_sigma=st.floats(0, 100),
    min_keep=st.integers(0, 30),
    samplers=st.lists(st.sampled_from(SAMPLERS), max_size=32).map(tuple),
    dynatemp_range=st.floats(0, 100),
    dynatemp_exponent=st.floats(0, 100),
    xtc_probability=st.floats(0, 1),
    xtc_threshold=st.floats(0, 1),
    dry_multiplier=st.floats(0, 100),
    dry_base=st.floats(1, 100),
    dry_allowed_length=st.integers(0, 5),
    dry_penalty_last_n=st.integers(-1, 20),
    mirostat=st.sampled_from([0, 0, 1, 2]),
    mirostat_tau=st.floats(0, 100),
    mirostat_eta=st.floats(0, 100),
)
logit = st.one_of(st.floats(-50, 50, width=32), st.just(-np.inf), st.just(1e30), st.just(-1e30))


@given(
    wanted_params | rare_params,
    st.lists(logit, min_size=19, max_size=19),
    st.lists(st.integers(0, 19)),
)
def test_any_parameters_choose_some_token_that_is_not_banned(
    wanted: SamplingParams, values: list[float], history: list[int]
) -> None:
    logits = np.array([0.5, *values], np.float32)
    sampler = Sampler(wanted, 20)
    token = sampler.choose(logits, history, 0, 3)
    assert logits[token] > -np.inf
    assert token == Sampler(wanted, 20).choose(logits, list(history), 0, 3)
    for position in range(4, 8):  # with the state that its own choices have made
        sampler.choose(logits, history, 0, position)
    assert np.isfinite(sampler.state).all()
