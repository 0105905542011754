from pathlib import Path

import pytest

from tests.engine_worker.prompts.vocabularies import LARGE
from tests.fuzz.prompts import Lengths, is_sound, run

N_PROMPTS = 12


@pytest.mark.model
@pytest.mark.parametrize(
    "pre", ["tekken", *(pytest.param(p, marks=pytest.mark.slow) for p in LARGE[1:])]
)
def test_no_prompt_ends_the_process_or_gets_other_tokens(model_path: Path, pre: str) -> None:
    tally = run(pre, model_path, range(N_PROMPTS), Lengths(500, 60_000))
    assert is_sound(tally), tally
    assert sum(tally.outcomes.values()) == N_PROMPTS
