"""Recurrent and hybrid models share prefixes, by copies of their state."""

import pytest

from engine_worker.backend.llama.backend import LlamaBackend
from tests.models.families import UNCUT
from tests.models.reference import Reference
from tests.models.runs import ModelRun, require_equal, some_tokens

N_TOKENS = 12


@pytest.fixture(scope="module", params=[*UNCUT, "minimax-01"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def chat(backend: LlamaBackend, *messages: str) -> list[int]:
    """A conversation that begins with a system message, and the generation prompt."""
    roles = ["system", *["user", "assistant"] * len(messages)]
    turns = [
        f"<|im_start|>{role}\n{message}<|im_end|>\n"
        for role, message in zip(roles, messages, strict=False)
    ]
    text = "".join(turns) + "<|im_start|>assistant\n"
    return backend.tokenize(text, add_special=False, parse_special=True)


SYSTEM = "You are a gardener, and you answer each question with a poem about roses. " * 6


def test_a_repeated_prompt_is_computed_once(backend: LlamaBackend, reference: Reference) -> None:
    run = ModelRun(backend)
    prompt, alone = reference.surest(some_tokens(200, 1), N_TOKENS)
    for n_least in (0, 0.9 * len(prompt), 0.9 * len(prompt)):
        require_equal(run.answer(prompt, N_TOKENS), alone)
        assert run.n_cached >= n_least


def test_a_system_message_is_computed_once(backend: LlamaBackend, reference: Reference) -> None:
    run = ModelRun(backend)
    n_compared = 0
    for number, question in enumerate(("Why?", "Good morning", "And tulips?")):
        prompt = chat(backend, SYSTEM, question)
        alone = reference.answer(prompt, N_TOKENS)
        n_compared += require_equal(run.answer(prompt, N_TOKENS), alone, least_clear=0)
        assert number == 0 or run.n_cached >= 0.9 * len(prompt)
    assert n_compared >= 4


def test_requests_that_arrive_together_share_their_system_message(
    backend: LlamaBackend, reference: Reference
) -> None:
    run = ModelRun(backend)
    prompts = [chat(backend, SYSTEM, question) for question in ("Why?", "How?", "When?")]
    for tokens, prompt in zip(run.answers(prompts, N_TOKENS), prompts, strict=True):
        require_equal(tokens, reference.answer(prompt, N_TOKENS), least_clear=0)
    assert run.n_cached >= 0.9 * len(prompts[-1])


def test_a_turn_whose_history_is_written_otherwise_goes_on_after_the_last_question(
    backend: LlamaBackend, reference: Reference
) -> None:
    run = ModelRun(backend)
    question = "Why is that so, and is it so elsewhere as well?"
    first = chat(backend, SYSTEM, question)
    run.answer(first, N_TOKENS)
    turn = chat(backend, SYSTEM, question, "Because.", "And?")
    require_equal(run.answer(turn, N_TOKENS), reference.answer(turn, N_TOKENS), least_clear=0)
    assert run.n_cached >= len(first) - 16


def test_prompts_that_part_later_share_from_the_third_on(
    backend: LlamaBackend, reference: Reference
) -> None:
    """Without control tokens, the second prompt shows where they part."""
    run = ModelRun(backend)
    stem = some_tokens(180, 2)
    for number in range(3):
        prompt, alone = reference.surest([*stem, *some_tokens(40, 10 + number)], N_TOKENS)
        require_equal(run.answer(prompt, N_TOKENS), alone, least_clear=0)
        assert number < 2 or run.n_cached >= len(stem)


def test_checkpoints_outlive_the_worker(backend: LlamaBackend, reference: Reference) -> None:
    prompt = chat(backend, SYSTEM, "Why?")
    before = ModelRun(backend)
    before.answer(prompt, N_TOKENS)
    after = before.succeeded()
    for question in ("How?", "When?"):
        other = chat(backend, SYSTEM, question)
        alone = reference.answer(other, N_TOKENS)
        require_equal(after.answer(other, N_TOKENS), alone, least_clear=0)
        assert after.n_cached >= 0.9 * len(other)


def test_a_long_conversation_does_not_push_out_its_system_message(backend: LlamaBackend) -> None:
    run = ModelRun(backend)
    history = [SYSTEM, "Why?"]
    for _ in range(6):
        run.answer(chat(backend, *history), N_TOKENS)
        history += ["Because.", "And?"]
    other = chat(backend, SYSTEM, "Hello")
    run.answer(other, N_TOKENS)
    assert run.n_cached >= 0.9 * len(other)
