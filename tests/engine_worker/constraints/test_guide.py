"""A guide: masks for each row of a draft, forced tokens, and a state that follows from tokens."""

import pytest

from engine_worker.constraints.guide import Guide
from gpufc.constraint import Constraint, ConstraintKind
from tests.engine_worker.constraints.matchers import TOKENIZER, matcher

END = 256
GREETING = Constraint(ConstraintKind.REGEX, "hello (ann|bob)!")


def guide(read: str = "") -> Guide:
    made = Guide(matcher(GREETING), TOKENIZER.n_words)
    assert made.read(read.encode())
    return made


def allowed(mask: object) -> set[str]:
    return {chr(token) for token in range(END + 1) if mask[token >> 5] >> (token & 31) & 1}  # type: ignore[index]


def test_tokens_with_one_continuation_are_forced() -> None:
    assert bytes(guide().forced) == b"hello "
    assert bytes(guide("hel").forced) == b"lo "
    assert guide("hello ").forced == []
    assert bytes(guide("hello b").forced) == b"ob!"


def test_each_row_of_a_draft_has_the_mask_after_its_guesses() -> None:
    masks = guide("hello ").masks(b"bo")
    assert [allowed(mask) for mask in masks] == [{"a", "b"}, {"o"}, {"b"}]


def test_no_mask_follows_a_guess_that_is_not_allowed() -> None:
    masks = guide("hello ").masks(b"xob")
    assert allowed(masks[0]) == {"a", "b"}
    assert masks[1:] == [None, None, None]


def test_masks_of_a_draft_leave_the_state_as_it_was() -> None:
    made = guide("hello ")
    made.masks(b"bob")
    assert allowed(made.masks(())[0]) == {"a", "b"}
    assert made.read(b"ann!")
    assert made.is_complete


@pytest.mark.parametrize("n_read", range(len("hello bob!")))
def test_a_guide_restored_at_any_token_goes_on_alike(n_read: int) -> None:
    text = "hello bob!"
    restored = guide(text[:n_read])
    assert allowed(restored.masks(())[0]) >= {text[n_read]}
    assert restored.read(text[n_read:].encode())
    assert restored.is_complete


def test_end_tokens_are_allowed_only_where_the_text_is_whole() -> None:
    made = Guide(matcher(Constraint(ConstraintKind.REGEX, "ab?c*")), TOKENIZER.n_words)
    assert chr(END) not in allowed(made.masks(())[0])
    assert made.read(b"a")
    assert allowed(made.masks(())[0]) == {"b", "c", chr(END)}
    assert not made.is_complete


def test_a_token_that_is_not_allowed_is_not_read() -> None:
    assert not guide("hello ").read(b"x")
