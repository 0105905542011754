"""On a device drafts have one length; they begin and end with a stretch of text that pays."""

from collections.abc import Callable, Sequence
from math import ceil

import pytest
from msgspec import structs

from engine_worker.backend.fake.backend import FakeBackend, expected_tokens
from engine_worker.backend.fake.vocabulary import tokenize
from engine_worker.backend.port import Batch
from engine_worker.backend.profile import Drafting
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.speculation.drafter import Draft, DraftRequest
from engine_worker.speculation.per_stretch import BEGIN_S, END_S, LENGTH, PerStretchSpeculator
from engine_worker.speculation.policies import speculator_for
from engine_worker.speculation.prompt_lookup import PromptLookup
from gpufc.config import BackendKind, KvUnified, ModelConfig
from gpufc.ids import RequestNo
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.speculation.scripted_drafter import (
    RIGHT,
    WRONG,
    ScriptedDrafter,
    settled_costs,
)
from tests.engine_worker.text.sequences import spec

GPU = settled_costs(0.002, 0.0001)
"""Seconds of a step: 2 ms, with a draft 2.7."""


def request(number: int, tokens: list[int], limit: int = 100, n_useful: int = 100) -> DraftRequest:
    return DraftRequest(RequestNo(number), tokens, limit, n_useful)


def step(speculator: PerStretchSpeculator, *sequences: list[int], n_decoding: int = 0) -> list[int]:
    """One step: each sequence gains the right tokens of its draft and one more.

    Returns the lengths of the drafts.
    """
    asked = [request(number, tokens) for number, tokens in enumerate(sequences, start=1)]
    drafts = speculator.draft_all(asked, n_decoding=n_decoding or len(sequences))
    for tokens, draft in zip(sequences, drafts, strict=True):
        n_right = next((n for n, token in enumerate(draft) if token != RIGHT), len(draft))
        tokens += [RIGHT] * (n_right + 1)
    return [len(draft) for draft in drafts]


def steps_until(speculator: PerStretchSpeculator, length: int, tokens: list[int]) -> int:
    for number in range(200):
        if step(speculator, tokens) == [length]:
            return number
    raise AssertionError(f"no draft of {length} in 200 steps")


def test_it_is_the_policy_for_drafting_per_stretch() -> None:
    speculator = speculator_for(Drafting.ONE_LENGTH, ScriptedDrafter(), GPU)
    assert isinstance(speculator, PerStretchSpeculator)


def test_drafts_begin_when_they_would_have_saved_what_a_change_costs() -> None:
    speculator = PerStretchSpeculator(ScriptedDrafter(), GPU)
    assert speculator.is_quiet
    # the first step has no draft to compare, the second would have begun one, and each further
    # step would have saved 2 ms
    n_steps = 1 + ceil(BEGIN_S / 0.002)
    assert steps_until(speculator, LENGTH, [0]) == n_steps
    assert not speculator.is_quiet


def test_drafts_end_when_they_have_lost_what_a_change_costs() -> None:
    drafter = ScriptedDrafter()
    speculator, tokens = PerStretchSpeculator(drafter, GPU), [0]
    steps_until(speculator, LENGTH, tokens)
    drafter.token = WRONG
    assert steps_until(speculator, 0, tokens) == pytest.approx(END_S / 0.0007, abs=2)
    assert speculator.is_quiet


def test_drafts_that_are_right_now_and_then_never_begin() -> None:
    drafter = ScriptedDrafter()
    speculator, tokens = PerStretchSpeculator(drafter, GPU), [0]
    for number in range(300):
        drafter.token = RIGHT if number % 5 == 0 else WRONG
        assert step(speculator, tokens) == [0]


def test_savings_of_long_ago_do_not_count() -> None:
    drafter = ScriptedDrafter()
    speculator, tokens = PerStretchSpeculator(drafter, GPU), [0]
    n_too_few = steps_until(PerStretchSpeculator(drafter, GPU), LENGTH, [0]) - 2
    for _ in range(3):
        drafter.token = RIGHT
        assert [step(speculator, tokens) for _ in range(n_too_few)] == [[0]] * n_too_few
        drafter.token = WRONG
        for _ in range(40):
            assert step(speculator, tokens) == [0]


def test_a_step_with_drafts_is_assumed_to_be_slow_until_one_was_measured() -> None:
    untried = StepCosts()
    for _ in range(3):
        untried.computed(1, 0.002)
    drafter = ScriptedDrafter()
    speculator, tokens = PerStretchSpeculator(drafter, untried), [0]
    steps_until(speculator, LENGTH, tokens)
    drafter.token = WRONG
    assert steps_until(speculator, 0, tokens) == pytest.approx(END_S / 0.001, abs=2)


class OneCopies(ScriptedDrafter):
    """Right for the first sequence only."""

    def draft_all(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [
            Draft([RIGHT if request.key == 1 else WRONG] * request.limit, 5) for request in requests
        ]


def test_drafts_begin_if_one_sequence_gains_more_than_the_other_ones_lose() -> None:
    """Eleven tokens in a step of 5.1 ms, where four take 2.3."""
    speculator = PerStretchSpeculator(OneCopies(), GPU)
    sequences: list[list[int]] = [[0], [0], [0], [0]]
    seen = [step(speculator, *sequences) for _ in range(60)]
    assert seen[40:] == [[LENGTH] * 4] * 20


def test_drafts_do_not_begin_if_other_sequences_lose_more_than_one_gains() -> None:
    dear = settled_costs(0.002, 0.0005)
    speculator = PerStretchSpeculator(OneCopies(), dear)
    sequences: list[list[int]] = [[0], [0], [0], [0]]
    assert [step(speculator, *sequences) for _ in range(100)] == [[0] * 4] * 100


def test_all_sequences_of_a_step_have_drafts_of_one_length() -> None:
    speculator = PerStretchSpeculator(ScriptedDrafter(), GPU)
    sequences: list[list[int]] = [[0], [0, 0], [0, 0, 0]]
    seen = [step(speculator, *sequences, n_decoding=4) for _ in range(60)]
    assert [LENGTH] * 3 in seen
    assert all(lengths in ([0] * 3, [LENGTH] * 3) for lengths in seen)


def test_a_short_draft_is_padded_with_the_last_token() -> None:
    drafter = ScriptedDrafter()
    speculator, tokens = PerStretchSpeculator(drafter, GPU), [0]
    steps_until(speculator, LENGTH, tokens)
    drafter.draft_all = lambda asked: [Draft([5, 6], 9) for _ in asked]  # type: ignore[method-assign]
    (draft,) = speculator.draft_all([request(1, [*tokens, 4])], n_decoding=1)
    assert draft == [5, 6, 4, 4, 4, 4, 4]
    (draft,) = speculator.draft_all([request(1, [*tokens, 4, 4], limit=3)], n_decoding=1)
    assert draft == [5, 6, 4], "no more than there is room for"


def test_a_draft_keeps_its_length_beyond_the_end_of_the_answer() -> None:
    speculator, tokens = PerStretchSpeculator(ScriptedDrafter(), GPU), [0]
    steps_until(speculator, LENGTH, tokens)
    (draft,) = speculator.draft_all([request(1, [*tokens, RIGHT], n_useful=2)], n_decoding=1)
    assert len(draft) == LENGTH


def test_drafts_start_over_after_a_pause() -> None:
    drafter = ScriptedDrafter()
    speculator, tokens = PerStretchSpeculator(drafter, GPU), [0]
    steps_until(speculator, LENGTH, tokens)
    speculator.pause()
    assert speculator.is_quiet
    tokens += [RIGHT] * 500
    assert step(speculator, tokens) == [0]


@pytest.mark.parametrize(
    "dear",
    [lambda: settled_costs(0.001, 0.002), lambda: settled_costs(0.002, 0.0021)],
    ids=["dear", "barely"],
)
def test_where_a_step_with_drafts_costs_too_much_the_drafter_is_not_asked(
    dear: Callable[[], StepCosts],
) -> None:
    drafter = ScriptedDrafter()
    speculator, tokens = PerStretchSpeculator(drafter, dear()), [0]
    assert [step(speculator, tokens) for _ in range(50)] == [[0]] * 50
    assert not drafter.asked


def test_without_costs_or_requests_there_are_no_drafts() -> None:
    assert step(PerStretchSpeculator(ScriptedDrafter(), StepCosts()), [0]) == [0]
    assert PerStretchSpeculator(ScriptedDrafter(), GPU).draft_all([], n_decoding=0) == []


def test_an_ended_sequence_is_forgotten_by_the_drafter_too() -> None:
    drafter = ScriptedDrafter()
    speculator = PerStretchSpeculator(drafter, GPU)
    step(speculator, [0])
    speculator.forget(RequestNo(1))
    speculator.forget(RequestNo(7))
    assert drafter.forgotten == [1, 7]


def test_a_text_that_repeats_itself_is_drafted_by_prompt_lookup() -> None:
    speculator = PerStretchSpeculator(PromptLookup(), GPU)
    phrase = [5, 9, 4, 8, 7, 3, 6]
    tokens, n_steps = [*phrase], 0
    while len(tokens) < 400:
        (draft,) = speculator.draft_all([request(1, tokens)], n_decoding=1)
        came = [phrase[(len(tokens) + at) % 7] for at in range(8)]
        pairs = zip(draft, came, strict=False)
        n_right = next((n for n, (a, b) in enumerate(pairs) if a != b), len(draft))
        tokens += came[: n_right + 1]
        n_steps += 1
    assert n_steps < 80


# a draft model


class SilentModel(ScriptedDrafter):
    """A draft model whose context is too short for the sequence."""

    def draft_all(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        self.asked.append([request.key for request in requests])
        return [Draft([], 0) for _ in requests]


def test_a_draft_model_with_empty_drafts_never_begins_drafts() -> None:
    drafter = SilentModel(assumed=0.9, evidence=0, position_s=0.0001)
    speculator, tokens = PerStretchSpeculator(drafter, GPU), [0]
    assert [step(speculator, tokens) for _ in range(300)] == [[0]] * 300
    assert drafter.asked


def test_a_wrong_draft_model_is_asked_for_a_hundredth_of_the_time() -> None:
    drafter = ScriptedDrafter(WRONG, assumed=0.2, evidence=0, position_s=0.0002)
    speculator, tokens = PerStretchSpeculator(drafter, GPU), [0]
    assert not speculator.is_quiet, "it computes on the device that computes the step"
    assert [step(speculator, tokens) for _ in range(700)] == [[0]] * 700
    # 1.4 ms for seven positions, of a hundredth of 2 ms each
    assert len(drafter.asked) == pytest.approx(10, abs=1)


def test_drafts_of_a_model_begin_while_it_is_right_and_end_when_it_is_wrong() -> None:
    drafter = ScriptedDrafter(assumed=0.9, evidence=0, position_s=0.0002)
    speculator, tokens = PerStretchSpeculator(drafter, GPU), [0]
    steps_until(speculator, LENGTH, tokens)
    drafter.token = WRONG
    # the rates of later positions stay high for a while: wrong drafts end at their first token
    seen = [step(speculator, tokens) for _ in range(400)]
    assert seen.count([LENGTH]) < 60
    assert seen[-200:] == [[0]] * 200


# in an engine


class KnowsTheAnswer(ScriptedDrafter):
    """Drafts the tokens that the fake model chooses after these words."""

    def __init__(self, words: tuple[int, ...]) -> None:
        super().__init__()
        self._words = words

    def draft_all(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [Draft(self._guess(request), 5) for request in requests]

    def _guess(self, request: DraftRequest) -> list[int]:
        n_known = len(request.tokens) - len(self._words)
        return expected_tokens(self._words, n_known + request.limit)[n_known:]


class SizedBatches(FakeBackend):
    """Computes all layers on a device; remembers the tokens of each batch."""

    def __init__(self, config: ModelConfig, n_sequences: int) -> None:
        super().__init__(config, n_sequences)
        self.facts = structs.replace(
            self.facts, asynchronous=True, n_gpu_layers=self.facts.n_layers
        )
        self.sizes: list[int] = []

    def begin(self, batch: Batch) -> None:
        self.sizes.append(len(batch.tokens))
        super().begin(batch)


def test_the_last_draft_on_a_device_is_as_long_as_the_others() -> None:
    words = tuple(tokenize("ends somewhere within a draft", add_special=True))
    fake = SizedBatches(
        ModelConfig(
            backend=BackendKind.FAKE, kv_cells=6 * 1024, n_ctx=1024, kv_unified=KvUnified.FALSE
        ),
        6,
    )
    run = EngineRun(fake, batch_tokens=64, drafter=KnowsTheAnswer(words))
    run.engine._reporter._costs.settled_seconds = lambda n_tokens, _: 1.0 + n_tokens * 1e-6  # type: ignore[method-assign]
    run.run(spec(1, words, max_tokens=60))
    assert run.tokens(1) == expected_tokens(words, 60)
    assert 1 + LENGTH in fake.sizes
    assert set(fake.sizes[1:]) <= {1, 1 + LENGTH}
