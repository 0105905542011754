"""Running streams wait for prompts no longer than is bearable, and short prompts do not wait."""

from engine_worker.scheduling.prefill_budget import STALL, PrefillBudget
from engine_worker.scheduling.step_costs import StepCosts
from gpufc.protocol import MIN_CHUNK

BATCH = 128


def linear(base_s: float, token_s: float) -> StepCosts:
    costs = StepCosts()
    for n_tokens in (1, 8, 16, 64, 128):
        costs.computed(n_tokens, base_s + token_s * n_tokens)
    return costs


def test_alone_a_prompt_is_computed_in_whole_batches() -> None:
    assert PrefillBudget(BATCH, linear(0.004, 0.005)).allowance(0) == BATCH


def test_a_short_prompt_is_computed_at_once_beside_running_streams() -> None:
    assert PrefillBudget(BATCH, linear(0.004, 0.005)).allowance(8) == BATCH


def test_a_long_prompt_gets_what_does_not_stall_the_others() -> None:
    costs = linear(0.004, 0.005)
    budget = PrefillBudget(BATCH, costs)
    chunks = []
    for _ in range(20):
        chunks.append(budget.allowance(16))
        budget.spent(16, chunks[-1], 1)
    plain_s, long_s = costs.seconds(16, 16), costs.seconds(16 + chunks[-1], 16)
    assert plain_s is not None
    assert long_s is not None
    assert long_s <= STALL * plain_s * 1.1
    assert chunks[0] == BATCH
    assert MIN_CHUNK <= chunks[-1] < BATCH / 4


def test_the_more_prompts_wait_the_more_they_get() -> None:
    def later(n_waiting: int) -> int:
        budget = PrefillBudget(BATCH, linear(0.004, 0.005))
        for _ in range(5):
            budget.spent(16, budget.allowance(16), n_waiting)
        return budget.allowance(16)

    assert later(1) < later(3) < later(20) == BATCH


def test_the_account_fills_up_again_in_steps_without_prompts() -> None:
    budget = PrefillBudget(BATCH, linear(0.004, 0.005), account=0)
    assert budget.allowance(16) == MIN_CHUNK
    for _ in range(20):
        budget.spent(16, 0, 0)
    assert budget.allowance(16) == BATCH


def test_where_tokens_are_cheap_nothing_is_held_back() -> None:
    budget = PrefillBudget(BATCH, linear(0.006, 0.00002))
    budget.spent(8, BATCH, 1)
    assert budget.allowance(8) == BATCH


def test_as_long_as_nothing_is_known_nothing_is_held_back() -> None:
    budget = PrefillBudget(BATCH, StepCosts())
    budget.spent(8, BATCH, 1)
    assert budget.allowance(8) == BATCH
