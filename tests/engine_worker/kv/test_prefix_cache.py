"""The longest prefix of the same scope matches; the longest unused holding is given up first."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Struct

from engine_worker.kv.edits import Holding
from engine_worker.kv.prefix_cache import MIN_MATCH, Match, PrefixCache

LONG = list(range(100))


def cache(can_cut: bool = True) -> PrefixCache:
    return PrefixCache(can_cut=can_cut)


def idle(prefixes: PrefixCache, slot: int, tokens: list[int], scope: str = "") -> None:
    prefixes.hold(slot, scope, tokens)
    assert prefixes.release(slot)


def test_an_empty_cache_matches_nothing() -> None:
    assert cache().match("", LONG) is None


def test_the_longest_prefix_wins_also_of_a_running_sequence() -> None:
    prefixes = cache()
    prefixes.hold(0, "", LONG[:30])
    prefixes.release(0)
    prefixes.hold(1, "", LONG[:60])
    assert prefixes.match("", LONG) == Match(1, 60)


def test_a_holding_that_has_lost_its_window_is_passed_over_for_a_shorter_prefix() -> None:
    asked = []

    def keeps(slot: int, n_tokens: int) -> bool:
        asked.append((slot, n_tokens))
        return slot != 1

    prefixes = PrefixCache(can_cut=True, keeps_prefix=keeps)
    idle(prefixes, 0, LONG[:30])
    idle(prefixes, 1, LONG[:60])
    assert prefixes.match("", LONG) == Match(0, 30)
    assert prefixes.match_in(1, "", LONG) is None
    assert asked == [(1, 60), (0, 30), (1, 60)]


def test_at_least_one_token_is_left_to_compute() -> None:
    prefixes = cache()
    prefixes.hold(0, "", LONG)
    assert prefixes.match("", LONG) == Match(0, 99)


def test_a_short_match_is_none() -> None:
    prefixes = cache()
    prefixes.hold(0, "", [*LONG[: MIN_MATCH - 1], 999])
    assert prefixes.match("", LONG) is None


def test_another_scopes_prefix_is_invisible() -> None:
    prefixes = cache()
    prefixes.hold(0, "alice", LONG)
    assert prefixes.match("bob", LONG) is None


def test_a_match_keeps_its_holding_from_being_given_up_next() -> None:
    prefixes = cache()
    for slot in (0, 1):
        prefixes.hold(slot, "", [slot, *LONG])
        prefixes.release(slot)
    prefixes.match("", [0, *LONG])
    assert prefixes.least_recently_used() == 1


def test_a_busy_holding_is_never_given_up() -> None:
    prefixes = cache()
    prefixes.hold(0, "", LONG)
    assert prefixes.least_recently_used() is None


def test_a_holding_too_short_to_match_is_not_kept() -> None:
    prefixes = cache()
    prefixes.hold(0, "", LONG[:3])
    assert prefixes.release(0) is False
    assert prefixes.idle_slots() == []


def test_a_model_that_cannot_be_cut_reuses_whole_idle_states_only() -> None:
    prefixes = cache(can_cut=False)
    prefixes.hold(0, "", LONG[:50])
    assert prefixes.match("", LONG) is None
    prefixes.release(0)
    assert prefixes.match("", LONG) == Match(0, 50)
    assert prefixes.match("", [*LONG[:49], 999, 998]) is None


def test_of_equal_prefixes_the_idle_one_with_least_beyond_is_taken() -> None:
    prefixes = cache()
    prefixes.hold(0, "", LONG[:40])
    idle(prefixes, 1, LONG[:90])
    idle(prefixes, 2, LONG[:60])
    assert prefixes.match("", [*LONG[:40], 999]) == Match(2, 40)


def test_a_holding_grows_by_the_new_tokens() -> None:
    prefixes = cache()
    prefixes.hold(0, "", LONG[:20])
    prefixes.extend(0, LONG[20:50])
    assert prefixes.n_tokens(0) == 50
    assert prefixes.match("", LONG) == Match(0, 50)


def test_a_slot_without_holding_holds_nothing() -> None:
    assert cache().n_tokens(3) == 0


def test_a_moved_holding_is_found_in_its_new_slot_only() -> None:
    prefixes = cache()
    idle(prefixes, 0, LONG)
    prefixes.move(0, 5)
    assert prefixes.match("", LONG) == Match(5, 99)
    assert prefixes.idle_slots() == [5]
    prefixes.forget(0)
    assert prefixes.n_tokens(5) == 100


@pytest.mark.parametrize("longer_is_idle", [True, False])
def test_a_prefix_of_another_holding_is_given_up_before_an_older_one(longer_is_idle: bool) -> None:
    prefixes = cache()
    idle(prefixes, 0, [999, *LONG])
    idle(prefixes, 1, LONG[:50])
    prefixes.hold(2, "", LONG)
    if longer_is_idle:
        prefixes.release(2)
    assert [prefixes.redundant(slot) for slot in range(3)] == [False, True, False]
    assert prefixes.least_recently_used() == 1


def test_the_prefix_of_another_scopes_holding_is_not_redundant() -> None:
    prefixes = cache()
    idle(prefixes, 0, LONG[:50], "alice")
    idle(prefixes, 1, LONG, "bob")
    assert not prefixes.redundant(0)


def test_of_two_equal_holdings_one_stays() -> None:
    prefixes = cache()
    idle(prefixes, 0, LONG)
    idle(prefixes, 1, LONG)
    assert prefixes.redundant(0)
    prefixes.forget(0)
    assert not prefixes.redundant(1)


def test_a_state_that_cannot_be_cut_makes_no_shorter_holding_redundant() -> None:
    prefixes = cache(can_cut=False)
    idle(prefixes, 0, LONG[:50])
    idle(prefixes, 1, LONG)
    assert not prefixes.redundant(0)
    idle(prefixes, 2, LONG[:50])
    assert prefixes.redundant(0)


class Held(Struct):
    scope: str
    tokens: list[int]
    idle: bool = False


SLOTS = st.integers(0, 5)
SCOPES = st.sampled_from("ab")
TOKENS = st.lists(st.integers(0, 1), max_size=4).map(lambda tail: [7] * MIN_MATCH + tail)
"""Token lists that are long enough to match and often share a long prefix."""


class CacheAgainstScan(RuleBasedStateMachine):
    """A model of the cache. `used` lists slots in the order of their last use."""

    @initialize(can_cut=st.booleans())
    def begin(self, can_cut: bool) -> None:
        self.can_cut = can_cut
        self.cache = PrefixCache(can_cut=can_cut)
        self.held: dict[int, Held] = {}
        self.used: list[int] = []

    def touch(self, slot: int) -> None:
        self.used = [other for other in self.used if other != slot] + [slot]

    def drop(self, slot: int) -> None:
        del self.held[slot]
        self.used.remove(slot)

    @rule(slot=SLOTS, scope=SCOPES, tokens=TOKENS)
    def hold(self, slot: int, scope: str, tokens: list[int]) -> None:
        self.cache.hold(slot, scope, tokens)
        self.held[slot] = Held(scope, tokens)
        self.touch(slot)

    @rule(slot=SLOTS, tokens=st.lists(st.integers(0, 1), max_size=3))
    def extend(self, slot: int, tokens: list[int]) -> None:
        if slot in self.held and not self.held[slot].idle:
            self.cache.extend(slot, tokens)
            self.held[slot].tokens = self.held[slot].tokens + tokens
            self.touch(slot)

    @rule(slot=SLOTS)
    def release(self, slot: int) -> None:
        kept = self.cache.release(slot)
        assert kept == (slot in self.held)
        if kept:
            self.held[slot].idle = True
            self.touch(slot)

    @rule(slot=SLOTS)
    def forget(self, slot: int) -> None:
        self.cache.forget(slot)
        if slot in self.held:
            self.drop(slot)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), to=SLOTS)
    def move(self, data: st.DataObject, to: int) -> None:
        source = data.draw(st.sampled_from(sorted(self.held)))
        if to not in self.held:
            self.cache.move(source, to)
            self.held[to] = self.held.pop(source)
            self.used[self.used.index(source)] = to

    @rule(scope=SCOPES, tokens=TOKENS)
    def match(self, scope: str, tokens: list[int]) -> None:
        found = self.cache.match(scope, tokens)
        assert found == self.expected(scope, tokens)
        if found is not None:
            held = self.held[found.slot]
            surplus = len(held.tokens) - found.n_tokens if held.idle else None
            assert self.cache.surplus(found) == surplus
            self.touch(found.slot)

    def expected(self, scope: str, tokens: list[int]) -> Match | None:
        """A scan over all holdings in order of use."""
        found = []
        for slot in self.used:
            held = self.held[slot]
            pairs = enumerate(zip(held.tokens, tokens, strict=False))
            shorter = min(len(held.tokens), len(tokens))
            n_tokens = min(next((i for i, (a, b) in pairs if a != b), shorter), len(tokens) - 1)
            whole = held.idle and n_tokens == len(held.tokens)
            if held.scope == scope and n_tokens >= MIN_MATCH and (self.can_cut or whole):
                surplus = len(held.tokens) - n_tokens if held.idle else 0
                found.append((-n_tokens, not held.idle, surplus, slot))
        if not found:
            return None
        n_tokens, _, _, slot = min(found, key=lambda entry: entry[:3])
        return Match(slot, -n_tokens)

    def is_redundant(self, slot: int) -> bool:
        held = self.held[slot]
        others = [
            other
            for number, other in self.held.items()
            if number != slot and other.scope == held.scope
        ]
        if self.can_cut:
            return any(other.tokens[: len(held.tokens)] == held.tokens for other in others)
        return any(other.idle and other.tokens == held.tokens for other in others)

    @invariant()
    def what_is_idle_goes_redundant_first_then_by_its_last_use(self) -> None:
        idle = [slot for slot in self.used if self.held[slot].idle]
        redundant = [slot for slot in idle if self.is_redundant(slot)]
        assert self.cache.idle_slots() == idle
        assert [slot for slot in idle if self.cache.redundant(slot)] == redundant
        assert self.cache.least_recently_used() == next(iter([*redundant, *idle]), None)
        assert self.cache.n_idle_tokens == sum(len(self.held[slot].tokens) for slot in idle)
        assert self.cache.idle_holdings() == [
            Holding(slot, self.held[slot].scope, tuple(self.held[slot].tokens))
            for slot in reversed(idle)
        ]

    @invariant()
    def every_slot_holds_what_it_was_given(self) -> None:
        for slot in range(6):
            held = self.held.get(slot)
            assert self.cache.n_tokens(slot) == (len(held.tokens) if held else 0)


TestCacheAgainstScan = CacheAgainstScan.TestCase
TestCacheAgainstScan.settings = settings(stateful_step_count=40)
