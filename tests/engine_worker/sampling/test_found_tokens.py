"""Where others than `Columns` find the first tokens of rows, or cannot."""

from typing import Any

import numpy as np
import pytest

from engine_worker.sampling.batch import (
    MAX_LEFT_OUT,
    TOP_K_ROWS,
    BatchSampler,
)
from tests.engine_worker.sampling.batches import (
    FoundBeforehand,
    Rows,
    check,
    first_of,
    make,
    params,
    rows,
)

# a finder that cannot tell


def test_logits_that_are_masked_are_found_without_it_from_then_on() -> None:
    batch = make(1000, 1, "ggml")
    logits = rows(2, 1000)
    wanted = [params(seed=seed) for seed in range(2)]
    check(batch, logits, wanted, [[], []], [])
    assert batch._top_k is not None
    logits[:, 5] = -np.inf
    check(batch, logits, wanted, [[], []], [])
    assert batch._top_k is None
    check(batch, logits, wanted, [[], []], [])


def test_it_is_not_asked_for_few_rows_nor_for_those_that_all_need_the_whole() -> None:
    batch = BatchSampler(1000, 1, NoTopK())
    n_rows = TOP_K_ROWS
    check(batch, rows(n_rows, 1000), [params(top_k=0)] * n_rows, [[]] * n_rows, [])
    check(batch, rows(n_rows - 1, 1000), [params()] * (n_rows - 1), [[]] * (n_rows - 1), [])
    with pytest.raises(AssertionError, match="asked"):
        check(batch, rows(n_rows, 1000), [params()] * n_rows, [[]] * n_rows, [])


class NoTopK:
    def first(self, logits: Rows, k: int) -> None:
        raise AssertionError("asked for what nobody wants")

    def close(self) -> None: ...


# what the backend has found beforehand


@pytest.mark.parametrize("kind", [{}, {"temperature": 0.0}, {"ignore_eos": True}])
def test_what_was_found_beforehand_is_not_looked_for_again(kind: dict[str, Any]) -> None:
    batch = FoundBeforehand(1000)
    batch._fold = no_look  # type: ignore[method-assign]
    batch._share = no_look  # type: ignore[method-assign]
    check(batch, rows(20, 1000), [params(seed=seed, **kind) for seed in range(20)], [[]] * 20, [1])


@pytest.mark.parametrize("n_odd", [4, 5])
@pytest.mark.parametrize(
    "odd", [{"top_k": 200}, {"logit_bias": ((7, 5.0),)}, {"repeat_penalty": 10.0}]
)
def test_a_few_rows_that_need_more_than_was_found_go_alone_and_many_together(
    odd: dict[str, Any], n_odd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = rows(20, 1000)
    lowered = [row.argsort()[-60:].tolist() for row in logits]
    batch = FoundBeforehand(1000)
    looked = []
    fold = batch._fold
    monkeypatch.setattr(batch, "_fold", lambda given: looked.append(1) or fold(given))
    wanted = [params(seed=row, **(odd if row < n_odd else {})) for row in range(20)]
    check(batch, logits, wanted, lowered, [])
    assert bool(looked) == (n_odd > MAX_LEFT_OUT)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_what_belongs_to_other_logits_is_not_believed(temperature: float) -> None:
    logits = rows(20, 1000)
    stale = first_of(logits[::-1].copy(), 64)
    batch = BatchSampler(1000, 1, first=lambda: stale)
    wanted = [params(seed=seed, temperature=temperature) for seed in range(20)]
    check(batch, logits, wanted, [[]] * 20, [])


def test_too_few_that_were_found_beforehand_are_not_taken_for_all() -> None:
    logits = rows(20, 1000)
    batch = BatchSampler(1000, 1, first=lambda: first_of(logits, 30))
    flat = {"top_k": 40, "temperature": 50.0, "top_p": 1.0, "min_p": 0.0}
    check(batch, logits, [params(seed=seed, **flat) for seed in range(20)], [[]] * 20, [])


def no_look(*_: object) -> Any:
    raise AssertionError("looked through what was known")
