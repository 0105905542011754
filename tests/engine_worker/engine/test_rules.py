"""vLLM's rules for an answer's tokens, on the scripted engine: its rows have one likely token."""

import msgspec
import pytest

from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.fake.vocabulary import GENERATED, tokenize
from engine_worker.speculation.prompt_lookup import PromptLookup
from gpufc.config import BackendKind, ModelConfig
from gpufc.protocol import FinishReason, Refused, TokenRules
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.text.sequences import spec


def said(text: str) -> list[int]:
    return [GENERATED + byte for byte in text.encode()]


def run(
    rules: TokenRules, prompt: str, *, known: str = "", stop: tuple[str, ...] = (), n: int = 6
) -> EngineRun:
    backend = FakeBackend.load(ModelConfig(backend=BackendKind.FAKE), 2, lambda _: None)
    made = EngineRun(backend, drafter=PromptLookup())
    wanted = spec(
        1,
        tuple(tokenize(prompt, add_special=True)),
        tokens=tuple(known.encode()) if known.startswith("\0") else tuple(said(known)),
        stop=stop,
        max_tokens=n,
    )
    made.run(msgspec.structs.replace(wanted, rules=rules))
    return made


def test_a_stop_token_ends_the_answer_as_an_end_token_does() -> None:
    made = run(TokenRules(stop=tuple(said("c"))), "[[say:abcd]]")
    assert made.tokens(1) == said("ab")
    last = made.deltas(1)[-1]
    assert (last.finish, last.by_end_token, last.stopped_by) == (FinishReason.STOP, True, None)


def test_only_allowed_tokens_come() -> None:
    made = run(TokenRules(allowed=tuple(said("bd"))), "[[say:abcd]]")
    assert set(made.tokens(1)) <= set(said("bd"))
    assert len(made.tokens(1)) == 6


@pytest.mark.parametrize("prompt", ["[[stop@0]]", "[[say:b]]"])
@pytest.mark.parametrize("n_known", [0, 1, 3])
def test_no_end_comes_before_the_least_number_of_tokens(prompt: str, n_known: int) -> None:
    """An end token, or a stop token, is the likely one in every row. The others are equal, so that
    the lowest id comes in its place."""
    rules = TokenRules(stop=tuple(said("b")), min_tokens=4)
    made = run(rules, prompt, known="\0" * n_known)
    assert made.tokens(1) == [0] * (4 - n_known)
    assert made.deltas(1)[-1].by_end_token


def test_no_stop_string_counts_before_the_least_number_of_tokens() -> None:
    made = run(TokenRules(min_tokens=3), "[[say:abcabc]]", stop=("bc",))
    assert made.text(1) == "abca"
    replayed = run(TokenRules(min_tokens=3), "[[say:abcabc]]", stop=("bc",), known="ab")
    assert replayed.text(1) == "ca"


def test_a_stop_string_can_be_kept() -> None:
    made = run(TokenRules(keeps_stop=True), "[[say:abcd]]", stop=("bc",))
    assert made.text(1) == "abc"
    assert made.deltas(1)[-1].stopped_by == 0


def test_a_token_outside_the_vocabulary_is_refused() -> None:
    made = run(TokenRules(allowed=(9999,)), "x")
    (refused,) = [message for message in made.messages if isinstance(message, Refused)]
    assert refused.param == "allowed_token_ids"
