"""Free draws that a guide checks, and the draws within a mask that follow refusals."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine_worker.backend.candidates import MaskWords
from engine_worker.constraints.guide import Guide
from engine_worker.sampling.batch import BatchSampler, Pick, prepare, second_choice
from engine_worker.sampling.logprobs import after_sampling
from engine_worker.sampling.sampler import AGAIN, Sampler
from gpufc.errors import RequestError
from gpufc.sampling import SamplingParams
from tests.engine_worker.sampling.aligned_logits import aligned
from tests.engine_worker.sampling.batches import FINDERS, Rows, each_finder, make, params, rows
from tests.engine_worker.sampling.masks import allowing, mask_of
from tests.engine_worker.sampling.plain_sampler import plain_choice
from tests.engine_worker.sampling.test_masks import KINDS

WHOLE: dict[str, Any] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}
"""A chain that truncates nothing."""


class Allowing:
    """A matcher's state in which these tokens may come next."""

    is_complete = False

    def __init__(self, words: MaskWords) -> None:
        self._words = words

    def allows(self, token: int) -> bool:
        return bool(self._words[token >> 5] >> (token & 31) & 1)

    def forced(self) -> list[int]:
        return []

    def consume(self, tokens: Sequence[int]) -> int:
        raise AssertionError("a check reads no token")

    def rollback(self, n_tokens: int) -> None:
        raise AssertionError("a check reads no token")

    def mask(self) -> MaskWords:
        return self._words

    def find_limit(self) -> None:
        raise AssertionError("a check reads no token")


def guide(words: MaskWords) -> Guide:
    return Guide(Allowing(words), len(words))


def chosen(batch: BatchSampler, logits: Rows, picks: list[Pick]) -> list[Any]:
    """The tokens of guided rows, after the second choice of the refused ones."""
    first = prepare(picks)
    tokens = batch.choose(logits, first)
    masks = {}
    for row, (pick, token) in enumerate(zip(picks, tokens, strict=True)):
        if isinstance(token, int) and pick.refuses(token):
            assert pick.guide is not None
            masks[row] = pick.guide.matcher.mask()
    again = second_choice(first, masks)
    for row, token in zip(again.rows, batch.choose(logits, again), strict=True):
        tokens[row] = token
    return tokens


def expected(
    wanted: SamplingParams, row: Rows, history: list[int], words: MaskWords, end: list[int]
) -> int | None:
    place: dict[str, Any] = {"end_tokens": end, "choice": 2, "position": len(history)}
    token = plain_choice(wanted, row, history, **place)
    if token is not None and words[token >> 5] >> (token & 31) & 1:
        return token
    return plain_choice(wanted, row, history, **place, mask=words, purpose=AGAIN)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.95])
@pytest.mark.parametrize("n_guided", [1, 6, 14])
@pytest.mark.parametrize("is_known", [True, False], ids=["masks ahead", "masks later"])
def test_guided_rows_among_others_get_the_plain_chain_s_second_tokens(
    share: float, n_guided: int, is_known: bool
) -> None:
    n_vocab, n_rows, end = 2_001, 14, [5, 6]
    generator = np.random.default_rng(n_guided)
    logits = aligned(rows(n_rows, n_vocab, seed=n_guided))
    given = logits.copy()
    histories = generator.integers(0, n_vocab, (n_rows, 60)).tolist()
    with each_finder(n_vocab, 2) as batches:
        for kinds in (KINDS, KINDS[:1], KINDS[1:2]):
            wanted = [params(seed=row, **kinds[row % len(kinds)]) for row in range(n_rows)]
            masks = [mask_of(generator.random(n_vocab) < share) for _ in range(n_guided)]
            picks, tokens = [], []
            for row, (one, history) in enumerate(zip(wanted, histories, strict=True)):
                words = masks[row] if row < n_guided else None
                sampler = Sampler(one, n_vocab, end)
                place = (sampler, history, len(history), 2, len(history))
                if words is None:
                    picks.append(Pick(*place))
                    tokens.append(
                        plain_choice(
                            one, logits[row], history, end_tokens=end, choice=2, position=60
                        )
                    )
                else:
                    picks.append(Pick(*place, words if is_known else None, guide(words)))
                    tokens.append(expected(one, logits[row], history, words, end))
            for finder, batch in batches.items():
                found = chosen(batch, logits, picks)
                found = [None if isinstance(one, RequestError) else one for one in found]
                assert found == tokens, finder
                assert (given == logits).all()


@pytest.mark.parametrize("finder", FINDERS)
@pytest.mark.parametrize("n_rows", [1, 12])
def test_a_chain_that_truncates_nothing_draws_from_the_distribution_within_the_mask(
    finder: str, n_rows: int
) -> None:
    n_vocab, n_draws = 96, 3000
    row = rows(1, n_vocab, seed=4, scale=1.0)[0]
    allowed = np.random.default_rng(5).random(n_vocab) < 0.4
    words = mask_of(allowed)
    batch = make(n_vocab, 1, finder)
    counts = np.zeros(n_vocab)
    logits = aligned(np.repeat(row[None], n_rows, axis=0))
    for start in range(0, n_draws, n_rows):
        picks = [
            Pick(
                Sampler(params(seed=start + at, **WHOLE), n_vocab),
                *((), 0, 0, 0, None, guide(words)),
            )
            for at in range(n_rows)
        ]
        np.add.at(counts, chosen(batch, logits, picks), 1)
    batch.close()
    assert not counts[~allowed].any()
    assert chi_square(counts[allowed], softmax(row[allowed])) < 1.5


def test_the_distribution_of_a_chain_that_truncates_is_the_one_that_is_told() -> None:
    n_vocab, n_draws = 96, 3000
    row = rows(1, n_vocab, seed=7, scale=1.5)[0]
    words = mask_of(np.random.default_rng(8).random(n_vocab) < 0.5)
    batch = BatchSampler(n_vocab, 1)
    counts = np.zeros(n_vocab)
    kind: dict[str, Any] = {"top_k": 20, "top_p": 0.8, "min_p": 0.0, "temperature": 1.0}
    for seed in range(n_draws):
        sampler = Sampler(params(seed=seed, **kind), n_vocab)
        pick = Pick(sampler, (), 0, 0, 0, words, guide(words))
        counts[chosen(batch, row[None], [pick])] += 1
    batch.close()
    told = after_sampling(row, pick, 0, n_vocab)
    chances = np.zeros(n_vocab)
    chances[told.ids] = np.exp(told.logprobs)
    assert chances.sum() == pytest.approx(1.0)
    possible = chances > 0.0
    assert not counts[~possible].any()
    assert chi_square(counts[possible], chances[possible]) < 1.5


def test_the_second_random_number_is_independent_of_the_first() -> None:
    sampler = Sampler(params(seed=3), 10)
    pairs = [(sampler.uniform(0, at), sampler.uniform(0, at, AGAIN)) for at in range(4000)]
    first, second = np.array(pairs).T
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    assert abs(second.mean() - 0.5) < 0.02


def test_a_row_that_is_not_refused_is_not_chosen_from_again() -> None:
    n_vocab = 1000
    logits = rows(4, n_vocab)
    picks = [
        Pick(Sampler(params(seed=row), n_vocab), (), 0, 0, 0, None, guide(allowing(n_vocab, [])))
        for row in range(4)
    ]
    batch = BatchSampler(n_vocab, 1)
    again = second_choice(prepare(picks), {1: allowing(n_vocab, [7]), 3: allowing(n_vocab, [9])})
    assert list(again.rows) == [1, 3]
    assert batch.choose(logits, again) == [7, 9]
    batch.close()


def softmax(row: NDArray[np.float32]) -> NDArray[np.float64]:
    weights = np.exp(row.astype(np.float64))
    whole: NDArray[np.float64] = weights / weights.sum()
    return whole


def chi_square(counts: NDArray[np.float64], chances: NDArray[np.float64]) -> float:
    """Pearson's statistic for each degree of freedom: about 1 if the counts are of the chances."""
    wanted = counts.sum() * chances
    return float(((counts - wanted) ** 2 / wanted).sum() / (len(counts) - 1))
