"""A sequence ends for the right reason; one made from its tokens continues like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_worker.text.sequence import Sequence
from gpufc.config import Replay
from gpufc.protocol import Delta, FinishReason
from tests.engine_worker.text.sequences import sequence, spec


def gained(running: Sequence, token: int) -> Delta:
    """The delta of one token."""
    running.accept(token)
    return running.delta()


def run(text: bytes, **wanted: object) -> tuple[str, list[FinishReason]]:
    """Feed bytes as tokens. Returns the joined text and all finish reasons."""
    running = sequence(spec(**wanted))  # type: ignore[arg-type]
    joined, finishes = "", []
    for token in text:
        delta = gained(running, token)
        joined += delta.text
        if delta.finish is not None:
            finishes.append(delta.finish)
            break
    return joined, finishes


def test_positions_count_the_generated_tokens() -> None:
    running = sequence(spec(prompt=5))
    assert [gained(running, 97).position for _ in range(3)] == [0, 1, 2]


def test_the_end_token_ends_and_is_not_part_of_the_answer() -> None:
    running = sequence(spec())
    gained(running, 97)
    delta = gained(running, 299)
    assert (delta.tokens, delta.finish) == ((), FinishReason.STOP)
    assert running.n_generated == 1


def test_the_last_delta_counts_the_end_token() -> None:
    running = sequence(spec())
    assert [gained(running, token).n_generated for token in (97, 98, 299)] == [1, 1, 1]
    stopped = sequence(spec(stop=("b",)))
    assert [gained(stopped, token).n_generated for token in (97, 98)] == [1, 1]


def test_max_tokens_ends_with_length() -> None:
    assert run(b"abcdef", max_tokens=3) == ("abc", [FinishReason.LENGTH])


def test_the_context_ends_with_length() -> None:
    running = sequence(spec(prompt=5), n_ctx=7)
    assert gained(running, 97).finish is None
    assert gained(running, 97).finish is FinishReason.LENGTH


def test_a_stop_string_is_cut_off_and_nothing_of_it_is_ever_sent() -> None:
    assert run(b"one two three", stop=("two",)) == ("one ", [FinishReason.STOP])


def test_the_last_delta_names_the_stop_string_that_ended_the_sequence() -> None:
    def stopped_by(tokens: tuple[int, ...]) -> int | None:
        running = sequence(spec(stop=("x", "bc"), max_tokens=3))
        return [gained(running, token) for token in tokens][-1].stopped_by

    assert stopped_by(tuple(b"abc")) == 1
    assert stopped_by(tuple(b"ax")) == 0
    assert stopped_by((97, 299)) is None
    assert stopped_by(tuple(b"abb")) is None


def test_a_replay_within_a_stop_string_names_it_as_well() -> None:
    replayed = sequence(spec(tokens=(97, 98), stop=("x", "bc")))
    assert gained(replayed, 99).stopped_by == 1


def test_text_held_back_for_a_stop_string_comes_when_it_was_none() -> None:
    assert run(b"a tw!", stop=("two",), max_tokens=5) == ("a tw!", [FinishReason.LENGTH])


def test_text_held_back_at_the_end_is_flushed() -> None:
    assert run(b"a tw", stop=("two",), max_tokens=4) == ("a tw", [FinishReason.LENGTH])


def test_a_character_cut_at_the_end_is_dropped_rather_than_broken() -> None:
    assert run("aé".encode(), max_tokens=2) == ("a", [FinishReason.LENGTH])


def test_tokens_of_several_steps_come_in_one_delta() -> None:
    running = sequence(spec())
    for token in b"abc":
        assert not running.accept(token)
    assert running.delta() == Delta(running.request, 0, tuple(b"abc"), "abc")
    assert running.delta() == Delta(running.request, 3, (), "")


def test_a_stop_string_ends_the_sequence_at_its_token_before_any_text_is_read() -> None:
    running = sequence(spec(stop=("bc",)))
    assert [running.accept(token) for token in b"abc"] == [False, False, True]
    assert running.delta() == Delta(
        running.request, 0, tuple(b"abc"), "a", FinishReason.STOP, stopped_by=0
    )


def test_nothing_to_generate_ends_before_it_starts() -> None:
    ended = sequence(spec(max_tokens=0)).nothing_to_generate()
    assert ended is not None
    assert ended.finish is FinishReason.LENGTH
    assert sequence(spec(max_tokens=1)).nothing_to_generate() is None


@given(
    st.text(alphabet="ab é🙂中", min_size=1, max_size=12),
    st.integers(0, 40),
    st.sampled_from([(), ("ab",), ("b é", "🙂🙂"), ("a",)]),
)
def test_a_replayed_sequence_brings_exactly_the_missing_text(
    text: str, cut: int, stop: tuple[str, ...]
) -> None:
    tokens = tuple(text.encode())
    undisturbed = sequence(spec(stop=stop))
    texts = []
    for token in tokens:
        delta = gained(undisturbed, token)
        texts.append(delta.text)
        if delta.finish is not None:
            break
    cut = min(cut, len(texts) - 1)
    resumed = sequence(spec(stop=stop, tokens=tokens[:cut]))
    assert [gained(resumed, token).text for token in tokens[cut : len(texts)]] == texts[cut:]


@pytest.mark.parametrize(("computed", "expected"), [(0, 4), (4, 4), (8, 2), (10, 1), (11, 1)])
def test_exact_replay_feeds_the_prompt_in_its_chunks_and_generated_tokens_singly(
    computed: int, expected: int
) -> None:
    running = sequence(spec(prompt=10, tokens=(1, 2, 3), replay=Replay.EXACT))
    running.n_computed = computed
    assert running.next_chunk(4) == expected


def test_fast_replay_feeds_generated_tokens_in_batches() -> None:
    running = sequence(spec(prompt=3, tokens=(1, 2, 3)))
    assert running.next_chunk(100) == 6
