"""A draft is the continuation of the last equal n-gram, or of the copy that is followed."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_worker.speculation.drafter import Draft, DraftRequest
from engine_worker.speculation.prompt_lookup import INDEXED_AT_ONCE, NGRAM, PREDICTED, PromptLookup
from gpufc.ids import RequestNo

KEY = RequestNo(1)
TEXT = list(range(100, 200))


def draft(
    lookup: PromptLookup,
    tokens: list[int],
    limit: int = 4,
    key: int = 1,
    prediction: Sequence[int] = (),
    n_prompt: int = 0,
) -> Draft:
    asked = DraftRequest(RequestNo(key), tokens, limit, limit, tuple(prediction), n_prompt)
    (found,) = lookup.draft_all([asked])
    return found


def test_text_without_repetition_brings_no_draft() -> None:
    assert draft(PromptLookup(), TEXT).tokens == []


def test_an_empty_sequence_brings_no_draft() -> None:
    assert draft(PromptLookup(), []).tokens == []


def test_the_continuation_of_an_ngram_is_drafted() -> None:
    tokens = [*TEXT, 1, *TEXT[20 : 20 + NGRAM]]
    assert draft(PromptLookup(), tokens) == Draft([123, 124, 125, 126], NGRAM)


def test_an_ngram_goes_before_a_token_that_stood_elsewhere_later() -> None:
    tokens = [*TEXT, 122, 1, *TEXT[20 : 20 + NGRAM]]
    assert draft(PromptLookup(), tokens).tokens == [123, 124, 125, 126]


def test_one_token_that_stood_before_is_weak_evidence() -> None:
    assert draft(PromptLookup(), [*TEXT, 1, 150]) == Draft([151, 152, 153, 154], 1)


def test_the_last_of_several_places_is_taken() -> None:
    tokens = [1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3]
    assert draft(PromptLookup(), tokens, limit=1).tokens == [8]


def test_a_copy_is_followed_rather_than_looked_up_anew() -> None:
    lookup = PromptLookup()
    tokens = [*TEXT, *TEXT[:NGRAM], 1, *TEXT[:NGRAM]]
    first = draft(lookup, tokens, limit=1)
    assert first == Draft([1], NGRAM)
    tokens.append(1)
    assert draft(lookup, tokens, limit=1) == Draft([100], NGRAM + 1)


def test_a_copy_that_went_wrong_is_taken_up_again_after_the_change() -> None:
    lookup = PromptLookup()
    tokens = [*TEXT, *TEXT[:20]]
    draft(lookup, tokens)
    tokens += [1, *TEXT[21:23]]
    assert draft(lookup, tokens).tokens == TEXT[23:27]


def test_a_repeated_phrase_is_drafted_beyond_its_end() -> None:
    assert draft(PromptLookup(), [1, 2, 3, 1, 2, 3], limit=8).tokens == [1, 2, 3, 1, 2, 3, 1, 2]


def test_sequences_do_not_know_of_each_other() -> None:
    lookup = PromptLookup()
    draft(lookup, TEXT, key=1)
    assert draft(lookup, TEXT[:50], key=2).tokens == []


def test_a_forgotten_sequence_may_come_back() -> None:
    lookup = PromptLookup()
    draft(lookup, TEXT)
    lookup.forget(KEY)
    lookup.forget(KEY)
    assert draft(lookup, [*TEXT[:10], *TEXT[:5]]).tokens == TEXT[5:9]


def test_a_long_prompt_is_indexed_over_several_calls_and_then_drafted_from() -> None:
    lookup = PromptLookup()
    tokens = [*range(3 * INDEXED_AT_ONCE), *range(50, 60)]
    assert draft(lookup, tokens).tokens == []
    assert draft(lookup, tokens).tokens == []
    draft(lookup, tokens)
    assert draft(lookup, tokens).tokens == [60, 61, 62, 63]


@pytest.mark.parametrize("n_prompt", [1, 40, 90, 3 * INDEXED_AT_ONCE])
@pytest.mark.parametrize("n_predicted", [3, 100])
def test_a_predicted_answer_is_drafted_from_its_beginning(n_prompt: int, n_predicted: int) -> None:
    lookup, predicted = PromptLookup(), [*range(10**6, 10**6 + n_predicted)]
    tokens = [*range(n_prompt), predicted[0]]
    for _ in range(n_prompt // INDEXED_AT_ONCE):  # a long prompt is indexed first
        draft(lookup, tokens, 4, 1, predicted, n_prompt)
    found = draft(lookup, tokens, 4, 1, predicted, n_prompt)
    assert found == Draft(predicted[1:5], PREDICTED + 1)
    tokens += predicted[1:]
    assert draft(lookup, tokens, 4, 1, predicted, n_prompt).tokens == []


def test_a_prediction_is_taken_up_again_behind_a_change() -> None:
    lookup, predicted = PromptLookup(), TEXT
    tokens = [1, 2, *TEXT[:10], 7, 8]
    assert draft(lookup, tokens, 4, 1, predicted, 2).tokens == []
    tokens += TEXT[12:15]
    assert draft(lookup, tokens, 4, 1, predicted, 2).tokens == TEXT[15:19]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.data())
def test_however_the_tokens_came_the_draft_follows_an_earlier_place(
    tokens: list[int], data: st.DataObject
) -> None:
    lookup, at = PromptLookup(), 0
    while at < len(tokens):
        at = min(len(tokens), at + data.draw(st.integers(1, 100)))
        known = tokens[:at]
        found = draft(lookup, known, limit=6)
        assert len(found.tokens) in (0, 6)
        if found.tokens:
            assert any(follows(known, place, found) for place in range(1, at))
        else:
            assert known[-1] not in known[:-1]


def follows(tokens: list[int], place: int, found: Draft) -> bool:
    """Whether `found` is the text at `place`, with as many equal tokens before it as it claims."""
    n_equal, n = found.evidence, len(tokens)
    expected = (tokens[place:] * 6)[:6]
    return expected == found.tokens and (
        place >= n_equal and tokens[place - n_equal : place] == tokens[n - n_equal :]
    )
