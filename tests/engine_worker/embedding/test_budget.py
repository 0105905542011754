from engine_worker.embedding.budget import LEAST, EmbeddingBudget
from engine_worker.embedding.pass_sizes import SIZES
from engine_worker.scheduling.step_costs import StepCosts

STEP_S = 0.004


def pass_s(n_tokens: int) -> float:
    """A pass on a processor: each token costs."""
    return 0.002 + 0.001 * n_tokens


def budget() -> EmbeddingBudget:
    """Knows what steps of up to eight streams cost."""
    costs = StepCosts()
    for n_decoding in (1, 8):
        costs.computed(n_decoding, STEP_S * n_decoding)
    return EmbeddingBudget(costs)


def longest_pass_s(known: EmbeddingBudget, n_decoding: int, n_passes: int = 40) -> float:
    """After it has learnt, the longest of so many passes."""
    longest = 0.0
    for number in range(n_passes):
        n_tokens = known.allowance(n_decoding, 0)
        known.computed(n_tokens, pass_s(n_tokens))
        if number > 4:
            longest = max(longest, pass_s(n_tokens))
    return longest


def test_without_generation_a_pass_is_as_large_as_it_pays() -> None:
    known = budget()
    for _ in range(20):
        n_tokens = known.allowance(0, 0)
        known.computed(n_tokens, 0.01 + 0.0001 * n_tokens)
    assert known.allowance(0, 0) == SIZES[-1]


def test_a_stream_waits_at_most_three_steps_for_a_token() -> None:
    for n_decoding in (1, 2, 8):
        known = budget()
        step_s = STEP_S * n_decoding
        assert step_s + longest_pass_s(known, n_decoding) <= 3 * step_s
        assert known.allowance(n_decoding, 0) >= n_decoding  # and it gets on


def test_passes_grow_again_after_the_last_stream() -> None:
    known = budget()
    longest_pass_s(known, 1)
    assert known.allowance(0, 0) == SIZES[0]


def test_a_device_gets_larger_passes_than_a_processor() -> None:
    on_device = EmbeddingBudget(StepCosts(), on_device=True)
    assert on_device.allowance(0, 0) > budget().allowance(0, 0)


def test_as_long_as_costs_are_unknown_passes_are_small() -> None:
    unknown = EmbeddingBudget(StepCosts())
    assert unknown.allowance(4, 0) == LEAST


def test_steps_with_prompts_have_few_and_small_passes() -> None:
    known = budget()
    longest_pass_s(known, 1)
    allowed = [known.allowance(1, 100) for _ in range(8)]
    assert allowed == [0, 0, 0, LEAST] * 2
