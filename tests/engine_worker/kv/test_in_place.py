"""A sequence keeps the beginning of the idle slot that it takes over, however short, on a CPU."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_worker.backend.fake.backend import FakeBackend, expected_tokens
from engine_worker.backend.fake.vocabulary import tokenize
from engine_worker.kv.edits import Copy, Remove
from engine_worker.kv.prefix_cache import MIN_MATCH, Match, PrefixCache
from engine_worker.kv.slots import Slots
from engine_worker.kv.stream_slots import StreamSlots
from engine_worker.scheduling.policies import scheduler_for
from engine_worker.scheduling.step_costs import StepCosts
from gpufc.config import BackendKind, KvUnified, ModelConfig, Replay
from gpufc.protocol import Step
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.kv.slot_sets import idle_and_free
from tests.engine_worker.kv.test_slots import dear, end, run, shared, streams
from tests.engine_worker.scheduling.mixed_planner import profile
from tests.engine_worker.text.sequences import sequence, spec

OPENING = tuple(range(5))
"""BOS and the beginning of a chat template, for example."""

FIRST = (*OPENING, *range(100, 120))
SECOND = (*OPENING, *range(200, 211))

LAYOUTS = {
    "one cache": partial(shared, 1, 1, in_place=1),
    "streams": partial(streams, 1, in_place=1),
    "dear copies": partial(dear, 1000, 1, in_place=1),
}


@pytest.fixture(params=LAYOUTS)
def slots(request: pytest.FixtureRequest) -> Slots:
    """One slot, with a prefix that the next sequence replaces."""
    made: Slots = LAYOUTS[request.param]()
    end(made, run(made, 1, FIRST))
    made.take_edits()
    return made


def test_a_short_common_beginning_is_kept_without_a_copy(slots: Slots) -> None:
    again = sequence(spec(2, SECOND))
    slots.give(again)
    assert (again.slot, again.n_computed) == (0, 5)
    assert slots.take_edits() == [Remove(0, 5)]
    assert [holding.tokens for holding in slots.holdings()] == [OPENING]


@pytest.mark.parametrize(
    "unusable",
    [
        partial(spec, 2, SECOND, scope="other"),
        partial(spec, 2, SECOND, replay=Replay.EXACT),
        partial(spec, 2, SECOND, cache_prompt=False),
        partial(spec, 2, tuple(range(300, 320))),
    ],
)
def test_nothing_is_kept_for_a_sequence_that_may_not_use_it(
    slots: Slots, unusable: Callable[[], object]
) -> None:
    again = sequence(unusable())  # type: ignore[arg-type]
    slots.give(again)
    assert (again.slot, again.n_computed) == (0, 0)
    assert slots.take_edits() == [Remove(0, 0)]


def test_no_exact_replay_goes_on_in_place_beside_a_running_sequence() -> None:
    slots = streams(2, in_place=1)
    end(slots, run(slots, 1, FIRST), run(slots, 2, FIRST))
    run(slots, 3, tuple(range(300, 320)))
    exact = sequence(spec(4, SECOND, replay=Replay.EXACT))
    slots.give(exact)
    assert exact.n_computed == 0


def test_at_least_one_token_is_left_to_compute(slots: Slots) -> None:
    again = sequence(spec(2, OPENING))
    slots.give(again)
    assert (again.n_computed, slots.take_edits()) == (4, [Remove(0, 4)])


def test_a_slot_is_chosen_for_its_last_use_and_not_for_its_beginning() -> None:
    slots = streams(2, in_place=1)
    end(slots, run(slots, 1, tuple(range(300, 320))), run(slots, 2, FIRST))
    again = sequence(spec(3, SECOND))
    slots.give(again)
    assert (again.slot, again.n_computed) == (0, 0)


@pytest.mark.parametrize("n_common", [MIN_MATCH - 1, MIN_MATCH])
def test_a_short_beginning_is_not_copied_from_another_slot(n_common: int) -> None:
    slots = streams(2, in_place=1)
    run(slots, 1, tuple(range(40)))
    slots.take_edits()
    again = sequence(spec(2, (*range(n_common), 300, 301)))
    slots.give(again)
    copies = [Copy(0, 1, MIN_MATCH)] if n_common == MIN_MATCH else []
    assert (again.slot, slots.take_edits()) == (1, copies)


def test_a_prefix_worth_a_copy_goes_before_a_short_beginning_in_place() -> None:
    slots = streams(2, in_place=1)
    end(slots, run(slots, 1, FIRST))
    run(slots, 2, tuple(range(40)))
    slots.take_edits()
    again = sequence(spec(3, (*range(MIN_MATCH), 300, 301)))
    slots.give(again)
    assert (again.slot, again.n_computed) == (0, MIN_MATCH)
    assert slots.take_edits() == [Remove(0, 0), Copy(1, 0, MIN_MATCH)]


def test_a_prefix_that_moves_leaves_no_beginning_behind() -> None:
    slots = dear(5, 4, in_place=1)
    _, in_the_way, _ = (run(slots, n, tokens) for n, tokens in enumerate((30, FIRST, 31)))
    end(slots, in_the_way)
    slots.take_edits()
    again = sequence(spec(4, SECOND))
    slots.give(again)
    assert (again.slot, again.n_computed) == (1, 0)
    assert slots.take_edits() == [Copy(1, 3, len(FIRST)), Remove(1, 0)]


def test_the_cells_of_a_prefix_that_is_being_moved_are_asked_for_where_they_are() -> None:
    asked = []

    def keeps(slot: int, n_tokens: int) -> bool:
        asked.append((slot, n_tokens))
        return True

    cache = PrefixCache(can_cut=True, keeps_prefix=keeps, least_in_place=1)
    slots = StreamSlots(4, max_idle=4, cache=cache)
    _, in_the_way, _ = (run(slots, n, tokens) for n, tokens in enumerate((30, FIRST, 31)))
    end(slots, in_the_way)
    slots.take_edits()
    slots.give(sequence(spec(4, tuple(range(300, 320)))))
    again = sequence(spec(5, SECOND))
    slots.give(again)
    assert (again.slot, again.n_computed) == (3, 5)
    assert asked[-1] == (1, 5)
    assert slots.take_edits() == [Copy(1, 3, len(FIRST)), Remove(1, 0), Remove(3, 5)]


def test_a_short_prefix_stays_no_idle_one(slots: Slots) -> None:
    short = run(slots, 2, OPENING)
    end(slots, short)
    assert idle_and_free(slots) == ([], [0])


def test_a_slot_that_has_lost_its_window_keeps_nothing() -> None:
    asked = []

    def keeps(slot: int, n_tokens: int) -> bool:
        asked.append((slot, n_tokens))
        return False

    prefixes = PrefixCache(can_cut=True, keeps_prefix=keeps, least_in_place=1)
    prefixes.hold(3, "", FIRST)
    prefixes.release(3)
    assert prefixes.match_in(3, "", SECOND, {3: 7}.__getitem__) is None
    assert asked == [(7, 5)]


def test_a_state_that_cannot_be_cut_is_kept_whole_or_not_at_all() -> None:
    prefixes = PrefixCache(can_cut=False, least_in_place=1)
    prefixes.hold(0, "", FIRST)
    prefixes.release(0)
    assert prefixes.match_in(0, "", SECOND) is None
    assert prefixes.match_in(0, "", (*FIRST, 7)) == Match(0, len(FIRST))


@pytest.mark.parametrize(("on_device", "n_kept"), [(False, 5), (True, 0)])
@pytest.mark.parametrize("consecutive", [False, True])
def test_a_device_keeps_prompts_of_equal_length_equal(
    consecutive: bool, on_device: bool, n_kept: int
) -> None:
    planner = scheduler_for(
        profile(1, consecutive=consecutive, on_device=on_device),
        max_running=1,
        batch_tokens=64,
        costs=StepCosts(),
    )
    assert planner.slots.adopt("", FIRST) == 0
    planner.add(sequence(spec(2, SECOND)))
    plan = planner.plan()
    assert [started.n_cached for started in plan.started] == [n_kept]
    assert plan.n_prefill == len(SECOND) - n_kept


TEXTS = st.lists(
    st.tuples(st.integers(0, 20), st.text("ab", max_size=6), st.integers(1, 25)),
    min_size=1,
    max_size=6,
)
"""Tokens of one opening, other ones, and the length of the answer, of requests at once."""


@given(
    st.sampled_from(["", "window=24", "uncut=1"]),
    st.sampled_from([KvUnified.TRUE, KvUnified.FALSE]),
    st.lists(TEXTS, max_size=8),
)
def test_text_is_right_whatever_beginnings_slots_keep(
    script: str, unified: KvUnified, rounds: list[list[tuple[int, str, int]]]
) -> None:
    config = ModelConfig(
        backend=BackendKind.FAKE,
        n_ctx=512,
        kv_cells=4 * 512,
        kv_unified=unified,
        fake_script=script,
    )
    engine = EngineRun(FakeBackend(config, 4), max_running=2)
    wanted = {}
    for texts in rounds:
        requests = []
        for n_same, rest, length in texts:
            tokens = tuple(tokenize("the same opening of all"[:n_same] + rest, add_special=True))
            n = len(wanted) + 1
            wanted[n] = expected_tokens(tokens, length)
            requests.append(spec(n, tokens, max_tokens=length))
        engine.run(*requests)
    assert {n: engine.tokens(n) for n in wanted} == wanted


def test_an_engine_on_a_cpu_keeps_short_beginnings() -> None:
    config = ModelConfig(
        backend=BackendKind.FAKE, n_ctx=512, kv_cells=2 * 512, kv_unified=KvUnified.FALSE
    )
    engine = EngineRun(FakeBackend(config, 2), max_running=1)
    for n in range(1, 6):
        words = tuple(tokenize(f"same {n} {n} {n}", add_special=True))
        engine.run(spec(n, words, max_tokens=20))
        assert engine.tokens(n) == expected_tokens(words, 20)
    started = [one for each in engine.messages if isinstance(each, Step) for one in each.started]
    assert [one.n_cached for one in started] == [0, 0, 6, 6, 6]
