"""Where states that cannot be cut are kept, and for how long."""

import random

import pytest

from engine_worker.kv.checkpoint_slots import (
    LEAST_TOKENS,
    CheckpointSlots,
    end_of_first_message,
    end_of_prompt,
)
from engine_worker.kv.edits import Copy, Remove
from engine_worker.kv.prefix_cache import PrefixCache
from engine_worker.text.sequence import Sequence
from gpufc.config import BackendKind, KvUnified, ModelConfig
from tests.engine_worker.kv.prefix_runs import PrefixRun
from tests.engine_worker.text.sequences import sequence, spec

CONTROL = 0
LONG = tuple(range(1, 1 + LEAST_TOKENS))
SYSTEM = (CONTROL, *LONG, *LONG, CONTROL)


def is_control(token: int) -> bool:
    return token == CONTROL


def slots(max_idle: int = 4) -> CheckpointSlots:
    cache = PrefixCache(can_cut=False)
    return CheckpointSlots(6, max_idle=max_idle, cache=cache, is_control=is_control)


def begun(held: CheckpointSlots, request: int, prompt: tuple[int, ...]) -> Sequence:
    running = sequence(spec(request, prompt))
    held.give(running)
    return running


def computed(held: CheckpointSlots, request: int, prompt: tuple[int, ...]) -> Sequence:
    """A sequence that has computed its prompt in chunks."""
    running = begun(held, request, prompt)
    while running.n_pending > 1:
        running.advance(min(running.next_chunk(1000), running.n_pending - 1))
        held.remember(running)
    return running


def test_the_first_message_ends_at_the_first_long_run_between_control_tokens() -> None:
    prompt = (CONTROL, 5, 6, CONTROL, *LONG, CONTROL, *LONG, CONTROL, 7)
    assert end_of_first_message(prompt, is_control) == 4 + LEAST_TOKENS
    assert end_of_first_message(LONG * 3, is_control) is None


def test_a_prompt_ends_before_its_generation_prompt() -> None:
    assert end_of_prompt((*LONG, CONTROL, 8, CONTROL, 9, 9), is_control) == LEAST_TOKENS + 2
    assert end_of_prompt(LONG, is_control) == LEAST_TOKENS - 1


def test_chunks_end_at_checkpoints_and_each_is_copied_once() -> None:
    held = slots()
    first = computed(held, 1, (*SYSTEM, *LONG, CONTROL, 9))
    ends = [2 * LEAST_TOKENS + 1, 3 * LEAST_TOKENS + 2]
    assert list(first.checkpoints) == ends
    assert held.take_edits() == [Copy(0, 5, ends[0]), Copy(0, 4, ends[1])]
    again = begun(held, 2, (*SYSTEM, *LONG, CONTROL, 9))
    assert (again.n_computed, again.checkpoints) == (ends[1], ())
    assert held.take_edits() == [Copy(4, 1, ends[1])]


def test_a_checkpoint_stays_when_a_sequence_begins_with_it() -> None:
    held = slots()
    computed(held, 1, (*SYSTEM, 7, CONTROL, 9))
    for request in (2, 3):
        other = begun(held, request, (*SYSTEM, 8, request, CONTROL, 9))
        assert other.n_computed == 2 * LEAST_TOKENS + 1


@pytest.mark.parametrize("question", [(7,), LONG])
def test_a_finished_conversation_goes_on_in_its_slot(question: tuple[int, ...]) -> None:
    held = slots()
    first = computed(held, 1, (*SYSTEM, *question, CONTROL, 9))
    for token in LONG:
        assert not first.accept(token)
        first.advance(1)
        held.remember(first)
    held.take_back(first, keep=True)
    held.take_edits()
    turn = begun(held, 2, (*first.tokens[: first.n_computed], 9, 3, 3, CONTROL, 9))
    assert (turn.slot, turn.n_computed) == (0, first.n_computed)
    assert held.take_edits() == []


def test_the_oldest_state_gives_way_to_a_checkpoint() -> None:
    held = slots(max_idle=1)
    computed(held, 1, (*SYSTEM, *LONG, CONTROL, 9))
    assert [type(edit) for edit in held.take_edits()] == [Copy, Remove, Copy]


@pytest.mark.parametrize("max_idle", [0, 4])
def test_exact_replays_and_caches_without_room_have_no_checkpoints(max_idle: int) -> None:
    held = slots(max_idle)
    prompt = (*SYSTEM, *LONG, CONTROL, 9)
    running = sequence(spec(1, prompt, cache_prompt=not max_idle))
    held.give(running)
    assert running.checkpoints == ()


@pytest.mark.parametrize("unified", [KvUnified.TRUE, KvUnified.FALSE])
def test_text_is_right_where_states_are_reused_whole(unified: KvUnified) -> None:
    config = ModelConfig(
        backend=BackendKind.FAKE,
        n_ctx=512,
        kv_cells=8 * 512,
        kv_unified=unified,
        fake_script="uncut=1",
    )
    run = PrefixRun(config, batch_tokens=64)
    numbers = random.Random(2)
    prompts = ["<|im_start|>system\nYou know all about foxes and hens.<|im_end|>\n"]
    cached = []
    for at in range(1, 40):
        stem = numbers.choice(prompts[:1] * 3 + prompts[-3:])
        prompts.append(f"{stem}<|im_start|>user\nand {at}?<|im_end|>\n<|im_start|>assistant\n")
        cached.append(run.n_cached(prompts[-1]))
    assert sum(count > LEAST_TOKENS for count in cached) > len(cached) / 2
