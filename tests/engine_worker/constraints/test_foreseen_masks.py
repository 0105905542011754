"""Masks that are computed ahead: the same ones, each computed once."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_worker.backend.candidates import MaskWords
from engine_worker.constraints import llg, step_masks
from engine_worker.constraints.foreseen_masks import ForeseenMasks
from engine_worker.constraints.guide import Guide
from engine_worker.constraints.step_masks import Wanted
from tests.engine_worker.constraints.matchers import TOKENIZER, matcher, schema
from tests.engine_worker.constraints.test_step_masks import (
    END,
    LETTERS,
    WORDS,
    Device,
    compare_any_steps,
    tokens_of,
)


@pytest.fixture(params=[True, False], ids=["beside a device", "after a pass"])
def masks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ForeseenMasks:
    monkeypatch.setattr(step_masks.host, "usable_cores", lambda: 4)
    return ForeseenMasks(Device(overlaps=request.param))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
@pytest.mark.parametrize("overlaps", [True, False])
def test_masks_of_any_step_are_those_of_each_guide_alone(
    data: st.DataObject, overlaps: bool
) -> None:
    compare_any_steps(data, ForeseenMasks(Device(overlaps=overlaps, n_threads=3)))  # type: ignore[arg-type]


@pytest.mark.parametrize("masks", [True], indirect=True, ids=["beside a device"])
def test_masks_that_were_not_foreseen_do_not_wait_for_foreseen_ones(
    masks: ForeseenMasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    guides = [Guide(matcher(WORDS), TOKENIZER.n_words) for _ in range(2)]
    for guide in guides:
        guide.masks(())
        guide.read(b"a")
    may_go_on = threading.Event()
    compute = llg.MaskThreads._compute

    def slow(
        self: llg.MaskThreads, rows: list[Any], words: MaskWords, tell: Callable[[], None]
    ) -> None:
        tell()
        assert may_go_on.wait(60.0)
        compute(self, rows, words)

    monkeypatch.setattr(llg.MaskThreads, "_compute", slow)
    masks.foresee(guides[:1])
    masks.begin([Wanted(guide) for guide in guides])  # would wait for ever
    may_go_on.set()
    assert len(masks.take()) == 2


def test_foreseen_masks_are_computed_at_once_and_not_again(
    masks: ForeseenMasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    compute = llg.MaskThreads._compute

    def noted(self: llg.MaskThreads, rows: list[Any], *arguments: Any) -> None:
        computed.append(len(rows))
        compute(self, rows, *arguments)

    monkeypatch.setattr(llg.MaskThreads, "_compute", noted)
    guides = [Guide(matcher(WORDS), TOKENIZER.n_words) for _ in range(3)]
    masks.begin([Wanted(guide) for guide in guides])
    masks.take()
    for guide in guides:
        guide.read(b"a")
    masks.foresee(guides[:2])
    masks.begin([Wanted(guide) for guide in guides])
    found = masks.take()
    after_a_letter = [ord(" "), *LETTERS, END]
    assert [tokens_of(mask) for (mask,) in found if mask is not None] == [after_a_letter] * 3
    assert computed == ([3, 2, 1] if masks._has_time else [3, 3])


def test_no_mask_is_computed_after_a_token_that_was_forced(
    masks: ForeseenMasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute(self: llg.MaskThreads, rows: list[Any], *_: Any) -> None:
        assert not rows

    guide = Guide(matcher(schema({"const": "only this"})), TOKENIZER.n_words)
    monkeypatch.setattr(llg.MaskThreads, "_compute", compute)
    read = []
    while not guide.is_complete:
        masks.begin([Wanted(guide)])
        ((mask,),) = masks.take()
        assert mask is not None
        (token,) = tokens_of(mask)
        assert guide.read((token,))
        masks.foresee([guide])
        read.append(token)
    assert bytes(read) == b'"only this"'


def test_a_sequence_that_ends_before_its_foreseen_mask_is_taken_disturbs_no_other(
    masks: ForeseenMasks,
) -> None:
    gone, left = (Guide(matcher(WORDS), TOKENIZER.n_words) for _ in range(2))
    for guide in (gone, left):
        guide.masks(())
        guide.read(b"a")
    masks.foresee([gone, left])
    del gone
    masks.begin([])
    assert masks.take() == []
    assert left.read(b"a")
    masks.begin([Wanted(left)])
    ((mask,),) = masks.take()
    assert mask is not None
    assert tokens_of(mask) == [ord(" "), *LETTERS, END]
