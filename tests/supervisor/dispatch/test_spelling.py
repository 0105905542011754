"""Token lists of any length are asked for in messages of bounded size."""

import pytest

from supervisor.dispatch.spelling import in_messages, joined


@pytest.mark.parametrize(
    ("sequences", "messages"),
    [
        ([], []),
        ([()], [([0], ((),))]),
        ([(1, 2, 3)], [([0], ((1, 2, 3),))]),
        ([(1, 2), (3,)], [([0, 1], ((1, 2), (3,)))]),
        ([(1, 2), (3, 4)], [([0], ((1, 2),)), ([1], ((3, 4),))]),
        ([(1, 2, 3, 4, 5)], [([0], ((1, 2, 3),)), ([0], ((4, 5),))]),
        ([(), (), (), (7,)], [([0, 1, 2], ((), (), ())), ([3], ((7,),))]),
    ],
)
def test_a_message_has_at_most_so_many_tokens(sequences: object, messages: object) -> None:
    assert list(in_messages(sequences, 3)) == messages  # type: ignore[arg-type]


def test_the_parts_of_a_list_are_one_text_again() -> None:
    lists = [(), (65,), tuple(range(97, 107)), (), (66, 67)]
    texts: list[bytes] = []
    for indices, parts in in_messages(lists, 3):
        joined(indices, [bytes(part) for part in parts], texts)
    assert texts == [bytes(one) for one in lists]


def test_lists_are_taken_from_an_iterator_as_they_are_needed() -> None:
    taken: list[int] = []

    def lists() -> object:
        for token in range(10):
            taken.append(token)
            yield (token,)

    messages = in_messages(lists(), 3)  # type: ignore[arg-type]
    assert next(messages)[0] == [0, 1, 2]
    assert len(taken) <= 4
