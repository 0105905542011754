"""Which sequence gets which slot, with which copies and removals, in one cache and in streams."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from engine_worker.kv.edits import Copy, Holding, KvEdit, Remove
from engine_worker.kv.prefix_cache import MIN_MATCH, Match, PrefixCache
from engine_worker.kv.radix_tree import n_common
from engine_worker.kv.slots import Slots, gaps
from engine_worker.kv.stream_slots import PATIENCE, StreamSlots
from engine_worker.text.sequence import Sequence
from tests.engine_worker.kv.slot_sets import idle_and_free
from tests.engine_worker.text.sequences import sequence, spec

PREFIX = tuple(range(40))
MOVES = ("start", "go on", "end", "settle", "adopt", "short")


def shared(n_slots: int = 6, max_idle: int = 6, in_place: int = MIN_MATCH) -> Slots:
    cache = PrefixCache(can_cut=True, least_in_place=in_place)
    return Slots(n_slots, max_idle=max_idle, cache=cache)


def streams(n_slots: int = 6, in_place: int = MIN_MATCH, least_copied: int = 0) -> StreamSlots:
    cache = PrefixCache(can_cut=True, least_in_place=in_place)
    return StreamSlots(n_slots, max_idle=n_slots, cache=cache, least_copied=least_copied)


def run(slots: Slots, request: int, prompt: tuple[int, ...] | int = 40) -> Sequence:
    """A sequence that has a slot and has computed all of its prompt."""
    running = sequence(spec(request, prompt))
    slots.give(running)
    running.advance(running.n_pending)
    slots.remember(running)
    return running


def end(slots: Slots, *sequences: Sequence) -> None:
    for each in sequences:
        slots.take_back(each, keep=True)


class Cells:
    """Carries edits out on token lists, as a backend would."""

    def __init__(self, n_slots: int) -> None:
        self.held: list[list[int]] = [[] for _ in range(n_slots)]

    def do(self, edits: list[KvEdit]) -> None:
        for edit in edits:
            match edit:
                case Remove(slot, start):
                    del self.held[slot][start:]
                case Copy(source, target, n_tokens):
                    assert not self.held[target], "a copy into a slot that is not empty"
                    assert n_tokens <= len(self.held[source])
                    self.held[target] = self.held[source][:n_tokens]


def test_in_one_cache_a_conversation_goes_on_in_the_slot_that_has_it() -> None:
    slots = shared()
    end(slots, run(slots, 1, PREFIX))
    slots.take_edits()
    again = sequence(spec(2, (*PREFIX, 7, 8)))
    slots.give(again)
    assert (again.slot, again.n_computed, slots.take_edits()) == (0, 40, [])


def test_in_streams_it_goes_on_in_place_if_that_is_beside_those_that_run() -> None:
    slots = streams()
    first, second = run(slots, 1, PREFIX), run(slots, 2)
    end(slots, first)
    slots.take_edits()
    again = sequence(spec(3, (*PREFIX, 7, 8)))
    slots.give(again)
    assert (again.slot, second.slot, slots.take_edits()) == (0, 1, [])


def test_the_source_of_a_pending_copy_is_asked_for_its_window() -> None:
    asked = []

    def keeps(slot: int, n_tokens: int) -> bool:
        asked.append((slot, n_tokens))
        return True

    cache = PrefixCache(can_cut=True, keeps_prefix=keeps)
    slots = Slots(6, max_idle=6, cache=cache)
    running = run(slots, 1, PREFIX)
    slots.take_edits()
    beside = sequence(spec(2, (*PREFIX[:30], 90, 91)))
    slots.give(beside)
    end(slots, beside, running)
    again = sequence(spec(3, (*PREFIX[:30], 90, 91)))
    slots.give(again)
    assert again.slot == 1
    assert set(asked) == {(0, 30)}


@pytest.mark.parametrize("layout", [shared, streams])
def test_a_slot_in_which_a_conversation_goes_on_is_not_given_up_as_idle(
    layout: Callable[[], Slots],
) -> None:
    slots = layout()
    end(slots, run(slots, 1, PREFIX))
    slots.give(sequence(spec(2, (*PREFIX, 7, 8))))
    slots.take_edits()
    assert idle_and_free(slots)[0] == []
    assert not slots.give_up_something()
    assert slots.take_edits() == []


def test_in_streams_it_is_copied_beside_those_that_run_and_leaves_its_old_place() -> None:
    slots = streams()
    running = [run(slots, n) for n in (1, 2, 3)]
    end(slots, run(slots, 4, PREFIX), running[2])
    run(slots, 5)  # takes slot 2, so that what it held has to move
    slots.take_edits()
    end(slots, running[1])
    far = sequence(spec(6, (*PREFIX, 7)))
    slots.give(far)
    assert far.slot == 1
    assert Copy(3, 1, 40) in slots.take_edits()
    assert 3 in idle_and_free(slots)[1]


def test_a_gap_is_filled_by_the_next_that_starts() -> None:
    slots = streams()
    running = [run(slots, n) for n in range(1, 5)]
    end(slots, running[1])
    assert run(slots, 9).slot == 1


def test_what_a_gap_held_moves_to_a_free_slot_rather_than_being_lost() -> None:
    slots = streams()
    running = [run(slots, n) for n in range(1, 5)]
    end(slots, running[1])
    run(slots, 9)
    idle, _ = idle_and_free(slots)
    assert idle == [5]
    assert run(slots, 10, (*running[1].tokens, 1)).n_computed == len(running[1].tokens) + 1


@pytest.mark.parametrize(("n_tokens", "is_kept"), [(51, False), (52, True)])
def test_what_is_short_is_given_up_where_a_move_is_dear(n_tokens: int, is_kept: bool) -> None:
    slots = dear(13)
    _, in_the_way, _ = (run(slots, n, n_tokens) for n in (1, 2, 3))
    end(slots, in_the_way)
    assert run(slots, 9).slot == 1
    assert (slots.match(sequence(spec(10, (*in_the_way.tokens, 1)))) is not None) == is_kept


# where copies are dear


def dear(least_copied: int, n_slots: int = 6, in_place: int = MIN_MATCH) -> StreamSlots:
    return streams(n_slots, in_place, least_copied)


@pytest.mark.parametrize(("least_copied", "n_computed"), [(40, 40), (41, 0)])
def test_a_short_prefix_of_another_slot_is_computed_again(
    least_copied: int, n_computed: int
) -> None:
    slots = dear(least_copied)
    run(slots, 1, (*PREFIX, 7))
    slots.take_edits()
    second = sequence(spec(2, (*PREFIX, 8, 9)))
    slots.give(second)
    assert (second.slot, second.n_computed) == (1, n_computed)
    assert slots.take_edits() == ([Copy(0, 1, 40)] if n_computed else [])


def test_what_lies_in_the_slot_itself_is_kept_as_far_as_it_is_the_same() -> None:
    slots = dear(1000, n_slots=3)
    ended = [run(slots, n, (*PREFIX, n, n, n)) for n in range(3)]
    end(slots, *ended)
    slots.take_edits()
    again = [sequence(spec(n, (*PREFIX, n, n, n))) for n in range(5, 8)]
    for each in again:
        slots.give(each)
    assert sorted((each.slot, each.n_computed) for each in again) == [(0, 40), (1, 40), (2, 40)]
    assert all(isinstance(edit, Remove) and edit.start == 40 for edit in slots.take_edits())


def test_a_prefix_worth_a_copy_is_not_copied_to_where_it_lies_already() -> None:
    slots = dear(20, n_slots=4)
    ended = [run(slots, n, (*PREFIX, n, n, n)) for n in range(4)]
    end(slots, *ended)
    slots.take_edits()
    for n in range(5, 9):
        again = sequence(spec(n, (*PREFIX, n, n, n)))
        slots.give(again)
        assert again.n_computed == 40
    assert all(isinstance(edit, Remove) and edit.start == 40 for edit in slots.take_edits())


def test_a_prefix_that_is_to_go_serves_the_sequence_in_its_slot_without_a_copy() -> None:
    slots = streams(n_slots=3)
    end(slots, *[run(slots, n, (*PREFIX, n, n, n)) for n in range(3)])
    slots.take_edits()
    again = [sequence(spec(n, (*PREFIX, n, n, n))) for n in range(5, 8)]
    for each in again:
        slots.give(each)
    assert [each.n_computed for each in again] == [40, 40, 40]
    assert set(slots.take_edits()) == {Remove(slot, 40) for slot in range(3)}


def test_the_only_idle_slot_serves_a_beginning_that_is_not_worth_a_copy() -> None:
    slots = dear(40, n_slots=2)
    chat = run(slots, 1, (*PREFIX[:30], *range(300, 500)))
    run(slots, 2, (*PREFIX[:30], *range(600, 700)))
    end(slots, chat)
    slots.take_edits()
    newcomer = sequence(spec(3, (*PREFIX[:30], 9, 9, 9)))
    slots.give(newcomer)
    assert (newcomer.slot, newcomer.n_computed) == (0, 30)
    assert slots.take_edits() == [Remove(0, 30)]


def test_a_longer_match_is_copied_over_a_prefix_that_is_to_go() -> None:
    slots = streams(n_slots=2)
    short, long = run(slots, 1, (*PREFIX, 1)), run(slots, 2, (*PREFIX, *range(50, 80)))
    end(slots, short, long)
    slots.take_edits()
    again = sequence(spec(3, (*PREFIX, *range(50, 70), 9)))
    slots.give(again)
    assert (again.slot, again.n_computed) == (0, 60)
    assert slots.take_edits() == [Remove(0, 0), Copy(1, 0, 60)]


def test_nothing_of_another_scope_is_kept_in_the_slot() -> None:
    slots = dear(1000, n_slots=2)
    ended = run(slots, 1, (*PREFIX, 1))
    theirs = structs.replace(spec(2, (*PREFIX, 2)), scope="other")
    other = sequence(theirs)
    slots.give(other)
    other.advance(other.n_pending)
    slots.remember(other)
    end(slots, ended, other)
    # the first slot is the match's, the second one has been idle for a shorter time
    assert slots._cache.match_in(1, "", [*PREFIX, 3]) is None
    assert slots._cache.match_in(0, "", [*PREFIX, 3]) == Match(0, 40)


def test_a_gap_in_which_no_sequence_starts_is_closed_after_some_steps() -> None:
    slots = streams()
    running = [run(slots, n) for n in range(1, 5)]
    end(slots, running[0], running[2])
    for _ in range(PATIENCE - 1):
        slots.settle()
    assert [each.slot for each in (running[1], running[3])] == [1, 3]
    slots.settle()
    # into a free place beside the other, rather than where an idle prefix would have to move
    assert [each.slot for each in (running[1], running[3])] == [4, 3]


def test_without_a_free_slot_the_least_recently_used_prefix_goes() -> None:
    slots = streams(n_slots=3)
    old, new = run(slots, 1), run(slots, 2)
    third = run(slots, 3)
    end(slots, old, new, third)
    run(slots, 4)
    assert slots.match(sequence(spec(5, (*old.tokens, 1)))) is None
    assert slots.match(sequence(spec(5, (*new.tokens, 1)))) is not None


def n_known(holding: Holding, fresh: Sequence) -> int:
    """The first tokens of a sequence that a holding has and the sequence may use."""
    is_same = holding.scope == fresh.spec.scope
    return n_common(holding.tokens, tuple(fresh.tokens[:-1])) if is_same else 0


@given(
    st.sampled_from(["one cache", "streams", "dear copies"]),
    st.sampled_from([1, MIN_MATCH]),
    st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 9))),
)
def test_every_running_slot_has_its_own_tokens_whatever_comes(
    layout: str, in_place: int, moves: list[tuple[str, int]]
) -> None:
    in_streams = layout != "one cache"
    slots = streams(7, in_place) if in_streams else shared(7, 3, in_place)
    if layout == "dear copies":
        slots = dear(20, 5, in_place)  # with four running ones, one is left
    cells, running, n_started = Cells(7), [], 0
    for move, at in moves:
        held = [holding.tokens for holding in slots.holdings()] or [()]
        if move in ("start", "go on") and len(running) < 4:
            n_started += 1
            # one in two is long enough to be moved where copies are dear
            n_words = 20 if n_started % 2 else 90
            prompt = (*PREFIX[: 4 * at], *range(100, 100 + n_words), n_started % 3)
            if move == "go on":
                prompt = (*held[at % len(held)], 60 + at)
            fresh = sequence(spec(n_started, prompt, scope="other" * (n_started % 5 == 0)))
            known = [n_known(holding, fresh) for holding in slots.holdings()]
            found = slots.match(fresh)
            slots.give(fresh)
            cells.do(slots.take_edits())
            assert fresh.n_computed in {0, *known}
            assert fresh.n_computed == 0 or fresh.n_computed >= in_place
            if found is not None and found.n_tokens >= slots.least_shared:
                n_least = found.n_tokens - slots.least_shared + 1
                assert fresh.n_computed >= max(MIN_MATCH, n_least)
            assert cells.held[fresh.slot or 0] == fresh.tokens[: fresh.n_computed]
            cells.held[fresh.slot or 0] = list(fresh.tokens)
            fresh.advance(fresh.n_pending)
            slots.remember(fresh)
            running.append(fresh)
        elif move == "end" and running:
            end(slots, running.pop(at % len(running)))
        elif move == "settle":
            for _ in range(PATIENCE):
                slots.settle()
            assert not in_streams or not any(gaps({each.slot or 0 for each in running}))
        elif move == "adopt":
            adopted = slots.adopt("", tuple(range(200 + at, 230 + at)))
            if adopted is not None:
                cells.do(slots.take_edits())
                cells.held[adopted] = list(range(200 + at, 230 + at))
        elif move == "short":
            slots.give_up_something()
        cells.do(slots.take_edits())
        for each in running:
            assert cells.held[each.slot or 0] == each.tokens
        for holding in slots.holdings():
            assert cells.held[holding.slot] == list(holding.tokens)
        idle, free = idle_and_free(slots)
        assert sorted([*idle, *free, *(each.slot for each in running)]) == list(
            range(slots.n_slots)
        )
        assert all(not cells.held[slot] for slot in free)


@pytest.mark.parametrize("make", [shared, streams])
def test_what_does_not_reuse_prefixes_begins_with_nothing_lying_about(make: object) -> None:
    slots: Slots = make()  # type: ignore[operator]
    end(slots, run(slots, 1, PREFIX))
    exact = sequence(spec(2, PREFIX, cache_prompt=False))
    slots.give(exact)
    assert (exact.n_computed, idle_and_free(slots)[0]) == (0, [])
