"""A predicted answer saves steps where it is right, and changes no token where it is wrong."""

import msgspec
import pytest

from engine_worker.backend.fake.backend import FakeBackend, expected_tokens
from engine_worker.backend.fake.vocabulary import tokenize
from engine_worker.speculation.prompt_lookup import PromptLookup
from gpufc.config import BackendKind, ModelConfig
from gpufc.protocol import Step, Tokens
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.text.sequences import spec

N = 60
PROMPT = tuple(tokenize("a question", add_special=True))
ANSWER = tuple(expected_tokens(PROMPT, N))
FOREIGN = (10**6, *ANSWER)


def run(prediction: Tokens, known: Tokens = ()) -> EngineRun:
    backend = FakeBackend.load(ModelConfig(backend=BackendKind.FAKE), 2, lambda _: None)
    made = EngineRun(backend, drafter=PromptLookup())
    made.fix_costs(0.01, 0.0001)
    wanted = spec(1, PROMPT, tokens=known, max_tokens=N)
    made.run(msgspec.structs.replace(wanted, prediction=prediction))
    return made


def n_steps(made: EngineRun) -> int:
    return sum(bool(message.deltas) for message in made.messages if isinstance(message, Step))


@pytest.mark.parametrize("known", [(), ANSWER[:20]])
def test_a_right_prediction_saves_most_steps(known: Tokens) -> None:
    made = run(ANSWER, known)
    assert (*known, *made.tokens(1)) == ANSWER
    assert n_steps(made) < n_steps(run((), known)) / 2


def test_a_prediction_helps_behind_a_place_where_it_is_wrong() -> None:
    made = run((*ANSWER[:20], 65, 66, *ANSWER[24:]))
    assert tuple(made.tokens(1)) == ANSWER
    assert n_steps(made) < n_steps(run(())) / 2


@pytest.mark.parametrize("prediction", [tuple(range(65, 90)), FOREIGN])
def test_a_wrong_prediction_changes_no_token(prediction: Tokens) -> None:
    assert tuple(run(prediction).tokens(1)) == ANSWER
