"""Turns of keys: no flow of others delays a key by more than one turn of each."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine_worker.scheduling.rota import Rota

KEYS = "abcde"
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["arrives", "ends"]), st.sampled_from(KEYS)),
        st.tuples(st.just("turn"), st.sets(st.sampled_from(KEYS))),
    ),
    max_size=80,
)


def test_keys_have_turns_in_the_order_of_their_arrival() -> None:
    rota: Rota[str] = Rota()
    for key in "bcab":
        rota.arrived(key)
    turns = ""
    for _ in range(6):
        key = rota.next_of(KEYS)
        assert key is not None
        turns += key
        rota.had_turn(key)
    assert turns == "bcabca"
    assert len(rota) == 3


@given(EVENTS)
def test_no_other_key_has_two_turns_before_one_that_may_have_its_own(
    events: list[tuple[str, str | set[str]]],
) -> None:
    rota: Rota[str] = Rota()
    n_sequences: Counter[str] = Counter()
    waits: dict[str, Counter[str]] = {}  # by key, the turns of others since it could have one
    for event, given_ in events:
        if event == "arrives":
            rota.arrived(str(given_))
            n_sequences[str(given_)] += 1
        elif event == "ends" and n_sequences[str(given_)]:
            rota.ended(str(given_))
            n_sequences[str(given_)] -= 1
            if not n_sequences[str(given_)]:
                waits.pop(str(given_), None)  # should it come again, it is a new one
        elif event == "turn":
            may = {key for key in given_ if n_sequences[key]}
            waits = {key: waits.get(key, Counter()) for key in may}
            turn = rota.next_of(set(given_))
            assert (turn in may) if may else turn is None
            if turn is not None:
                rota.had_turn(turn)
                waits = {
                    key: Counter() if key == turn else n + Counter(turn) for key, n in waits.items()
                }
                assert all(most <= 1 for n in waits.values() for most in n.values())
