"""Rows with other samplers than the plain chain, alone and in batches."""

import numpy as np
import pytest

from engine_worker.sampling.batch import prepare
from engine_worker.sampling.sampler import Sampler
from gpufc.errors import DecodeFailed, InvalidGrammar, InvalidRequest
from gpufc.sampling import samplers_of
from tests.engine_worker.sampling.aligned_logits import aligned
from tests.engine_worker.sampling.batches import FINDERS, make, params, pick, rows
from tests.engine_worker.sampling.kinds import RARE
from tests.engine_worker.sampling.masks import allowing

N_VOCAB = 1000


@pytest.mark.parametrize("finder", FINDERS)
def test_each_row_of_a_batch_gets_the_token_that_it_gets_alone(finder: str) -> None:
    kinds = [*RARE.values(), {}, {"temperature": 0.0}, {"top_k": 0}, {"repeat_penalty": 1.3}] * 2
    logits = rows(len(kinds), N_VOCAB, scale=1.5)
    histories = np.random.default_rng(1).integers(0, 50, (len(kinds), 60)).tolist()

    def picks() -> list:  # type: ignore[type-arg]
        wanted = [params(seed=row, **kind) for row, kind in enumerate(kinds)]
        return [
            pick(one, N_VOCAB, history, []) for one, history in zip(wanted, histories, strict=True)
        ]

    batch, given = make(N_VOCAB, 2, finder), aligned(logits)
    together = batch.choose(given, prepare(picks()))
    assert (given == logits).all()
    alone = [
        batch.choose(aligned(logits[row : row + 1]), prepare([one]))[0]
        for row, one in enumerate(picks())
    ]
    batch.close()
    assert together == alone
    assert [
        one.sampler.choose(logits[row], one.history, one.choice, one.position)
        for row, one in enumerate(picks())
    ] == alone


@pytest.mark.parametrize("kind", RARE)
def test_no_sampler_leaves_a_masked_or_a_banned_token(kind: str) -> None:
    logits = rows(1, N_VOCAB)[0]
    best = int(logits.argmax())
    wanted = params(**RARE[kind], logit_bias=((best, -100.0),))
    for allowed in ([7], [7, 8, 9, best]):
        ids, _ = Sampler(wanted, N_VOCAB).distribution(logits, [7, 8] * 20, allowing(1000, allowed))
        assert ids.tolist()
        assert set(ids.tolist()) <= set(allowed) - {best}


@pytest.mark.parametrize("kind", RARE)
def test_a_row_without_any_token_left_is_the_request_s_fault(kind: str) -> None:
    logits = rows(1, 5)[0]
    bans = tuple((token, -100.0) for token in range(5))
    with pytest.raises(InvalidRequest, match="no token to choose"):
        Sampler(params(**RARE[kind], logit_bias=bans), 5).choose(logits, [], 0, 0)
    with pytest.raises(InvalidGrammar):
        Sampler(params(**RARE[kind]), 5).choose(logits, [], 0, 0, allowing(5, []))


@pytest.mark.parametrize("kind", RARE)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_fail_the_step(kind: str, bad: float) -> None:
    for token in (3, 999):
        logits = rows(1, N_VOCAB)[0]
        logits[token] = bad
        with pytest.raises(DecodeFailed):
            Sampler(params(**RARE[kind]), N_VOCAB).choose(logits, [3] * 9, 0, 0)


@pytest.mark.parametrize("kind", RARE)
def test_a_row_that_cannot_be_written_is_sampled_alike(kind: str) -> None:
    logits = rows(1, N_VOCAB)[0]
    history = [5, 6, 7] * 10
    token = Sampler(params(**RARE[kind]), N_VOCAB).choose(logits, history, 0, 4)
    logits.flags.writeable = False
    assert Sampler(params(**RARE[kind]), N_VOCAB).choose(logits, history, 0, 4) == token


@pytest.mark.parametrize("kind", RARE)
def test_tokens_that_follow_in_the_history_s_list_are_not_looked_at(kind: str) -> None:
    logits = rows(1, N_VOCAB)[0]
    history = [5, 6, 7] * 10
    sampler = Sampler(params(**RARE[kind]), N_VOCAB)
    expected = sampler.choose(logits, history[:20], 0, 4)
    sampler = Sampler(params(**RARE[kind]), N_VOCAB)
    assert sampler.choose(logits, history, 0, 4, n_history=20) == expected


def test_xtc_drops_tokens_at_its_probability_and_by_a_random_number_of_its_own() -> None:
    logits = np.array([3.0, 2.9, 2.8, -1.0], np.float32)
    sampler = Sampler(params(xtc_probability=0.3, top_p=1.0, min_p=0.0), 4)
    first_left = [
        sampler.distribution(logits, [], position=position)[0][0] != 0 for position in range(3000)
    ]
    assert 0.27 < np.mean(first_left) < 0.33
    # were it the number that draws the token, it would say which token is drawn
    drawn = [sampler.choose(logits, [], 0, position) for position in range(3000)]
    whole = np.array(drawn)[~np.array(first_left)]
    assert np.bincount(whole, minlength=4)[0] / len(whole) == pytest.approx(0.36, abs=0.04)


def test_the_order_of_samplers_decides() -> None:
    logits = np.array([4.0, 3.0, 2.0, 1.0], np.float32)
    kinds = {"top_k": 0, "top_p": 0.8, "min_p": 0.0, "temperature": 10.0}
    left = {
        order: Sampler(params(**kinds, samplers=samplers_of(order)), 4).distribution(logits, [])[0]
        for order in ("pt", "tp")
    }
    assert (left["pt"].tolist(), left["tp"].tolist()) == ([0, 1], [0, 1, 2, 3])


def test_a_plain_order_takes_the_way_of_many_rows() -> None:
    for given in ({}, {"samplers": samplers_of("ekt")}, {"samplers": ()}, {"min_keep": 1}):
        assert Sampler(params(**given), 100).is_plain
    for given in (*RARE.values(), {"samplers": samplers_of("tk")}):
        assert not Sampler(params(**given), 100).is_plain


def test_mirostat_leaves_all_samplers_but_the_temperature_out() -> None:
    logits = rows(1, N_VOCAB)[0]
    history = [int(logits.argmax())] * 60
    others = {"top_k": 2, "repeat_penalty": 5.0, "dry_multiplier": 5.0, "xtc_probability": 1.0}
    with_others = Sampler(params(mirostat=2, **others), N_VOCAB).distribution(logits, history)
    alone = Sampler(params(mirostat=2), N_VOCAB).distribution(logits, history)
    assert with_others[0].tolist() == alone[0].tolist()
    assert Sampler(params(mirostat=2, temperature=0.0), N_VOCAB).is_argmax


def test_mirostat_steers_the_surprise_towards_its_target() -> None:
    for version in (1, 2):
        for tau in (2.0, 4.0):
            sampler = Sampler(params(mirostat=version, mirostat_tau=tau, temperature=1.0), N_VOCAB)
            surprises = []
            for position in range(600):
                logits = rows(1, N_VOCAB, seed=position, scale=1.5)[0]
                (before,) = sampler.state
                sampler.choose(logits, [], 0, position)
                surprises.append(tau + (before - sampler.state[0]) / 0.1)
            assert np.mean(surprises[100:]) == pytest.approx(tau, abs=0.3)
