"""The longest cached prefix is found, within its scope only, and the oldest goes first."""

from engine_worker.prefix_cache import MIN_MATCH, Match, PrefixCache

LONG = list(range(100))


def cache(can_cut: bool = True) -> PrefixCache:
    return PrefixCache(can_cut=can_cut)


def test_an_empty_cache_matches_nothing() -> None:
    assert cache().match("", LONG) is None


def test_the_longest_prefix_wins_also_of_a_running_sequence() -> None:
    prefixes = cache()
    prefixes.hold(0, "", LONG[:30])
    prefixes.release(0)
    prefixes.hold(1, "", LONG[:60])
    assert prefixes.match("", LONG) == Match(1, 60)


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


def test_what_is_too_short_to_match_is_not_worth_keeping() -> None:
    prefixes = cache()
    prefixes.hold(0, "", LONG[:3])
    assert prefixes.release(0) is False
    assert prefixes.idle_slots() == []


def test_a_model_that_cannot_be_cut_back_reuses_whole_idle_states_only() -> None:
    prefixes = cache(can_cut=False)
    prefixes.hold(0, "", LONG[:50])
    assert prefixes.match("", LONG) is None
    prefixes.release(0)
    assert prefixes.match("", LONG) == Match(0, 50)
    assert prefixes.match("", [*LONG[:49], 999, 998]) is None
