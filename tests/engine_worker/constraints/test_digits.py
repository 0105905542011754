"""Numbers of generated JSON end; texts and other answers keep their digits."""

from typing import Any

import numpy as np
import pytest

from engine_worker.constraints import llg
from engine_worker.constraints.digits import MAX_DIGITS, START, after
from engine_worker.constraints.llg import MaskThreads
from gpufc.constraint import Constraint, ConstraintKind
from tests.engine_worker.constraints.matchers import TOKENIZER, allows, matcher, schema

MOST = "7" * MAX_DIGITS


@pytest.mark.parametrize(
    ("pieces", "state"),
    [
        (["1", "2 ", "34"], 2),
        (["-", "12", "3"], 3),
        (["1.", "25"], 2),
        (['{"a', '12": 5'], 1),
        (['"12'], -1),
        (['"1\\', '"2'], -1),
        (['"1\\', '"', '2", 3'], 1),
        (['"1\\\\"', "4"], 1),
        (["é1"], 1),
    ],
)
def test_digits_are_counted_outside_strings_over_any_tokens(pieces: list[str], state: int) -> None:
    found = START
    for piece in pieces:
        found = after(found, piece.encode())
    assert found == state == after(START, "".join(pieces).encode())


@pytest.mark.parametrize(
    ("given", "text", "is_allowed"),
    [
        ({"type": "integer"}, MOST, True),
        ({"type": "integer"}, MOST + "7", False),
        ({"type": "number"}, f"-{MOST}.{MOST}e-{MOST}", True),
        ({"type": "number"}, f"0.{MOST}7", False),
        ({"type": "array", "items": {"type": "integer"}}, f"[{MOST}, {MOST}]", True),
        ({"type": "string"}, f'"{MOST}{MOST}"', True),
    ],
)
def test_a_number_has_at_most_so_many_digits_in_a_row(
    given: Any, text: str, is_allowed: bool
) -> None:
    assert allows(schema(given), text) is is_allowed


def test_digits_stay_allowed_where_nothing_else_is() -> None:
    found = llg.Matcher(TOKENIZER, llg.from_regex(f"{MOST}[0-9]{{9}}"), is_json=True)
    for byte in (MOST + "123456789").encode():
        assert found.mask()[byte >> 5] >> (byte & 31) & 1
        assert found.consume((byte,)) == 1
    assert found.is_accepting


@pytest.mark.parametrize("digits_go_on", [True, False])
def test_a_check_allows_the_digits_that_the_mask_has(digits_go_on: bool) -> None:
    grammar = f"{MOST}[0-9]{{9}}" if digits_go_on else f"{MOST}[0-9]*x?"
    found = llg.Matcher(TOKENIZER, llg.from_regex(grammar), is_json=True)
    for byte in MOST.encode():
        assert found.allows(byte)
        assert found.consume((byte,)) == 1
    assert found.allows(ord("7")) is digits_go_on
    assert found.allows(ord("x")) is not digits_go_on


def test_other_answers_than_json_keep_their_digits() -> None:
    assert allows(Constraint(ConstraintKind.REGEX, "[0-9]{60}x*"), "7" * 60)


def test_copies_rollbacks_and_threads_see_the_same_digits() -> None:
    one = matcher(schema({"type": "integer"}))
    assert one.consume(list(MOST.encode())) == MAX_DIGITS
    other = one.copy()
    other.rollback(1)
    words = np.zeros((2, TOKENIZER.n_words), np.int32)
    MaskThreads(1).fill([(one, 0), (other, 1)], words)
    seven = ord("7")
    assert [bool(row[seven >> 5] >> (seven & 31) & 1) for row in words] == [False, True]
    assert (words[0] == one.mask()).all()
    assert (words[1] == other.mask()).all()
    assert one.is_accepting
