"""Log probabilities in the engine: each token has those of its own row, whatever the step's shape.

The fake backend's rows have one likely token, which depends on all tokens before it. So a row that
is taken for another one shows a wrong best token.
"""

import math
from collections.abc import Callable, Sequence

import msgspec
import pytest

from engine_worker.backend.fake.backend import LOGIT, OTHERS, FakeBackend
from engine_worker.backend.fake.vocabulary import BOS, GENERATED, expected_tokens, tokenize
from engine_worker.engine.admission import MAX_PROMPT_LOGPROBS
from engine_worker.speculation.prompt_lookup import PromptLookup
from gpufc.config import BackendKind, KvUnified, ModelConfig, Replay
from gpufc.protocol import Delta, FinishReason, Generate, LogprobsWanted, Refused, TokenLogprobs
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.text.sequences import spec

WHOLE = math.log(math.exp(LOGIT) + math.fsum(map(math.exp, OTHERS.tolist()[1:])))
SAID = tuple(tokenize("tell [[say:abc abc abc abc abc abc]]", add_special=True))


def backend(*, on_a_device: bool = False, unified: bool = True, cells: int = 4096) -> FakeBackend:
    layout = KvUnified.TRUE if unified else KvUnified.FALSE
    config = ModelConfig(backend=BackendKind.FAKE, kv_cells=cells, n_ctx=1024, kv_unified=layout)
    fake = FakeBackend.load(config, 6, lambda _: None)
    if on_a_device:
        fake.facts = msgspec.structs.replace(
            fake.facts, asynchronous=True, n_gpu_layers=fake.facts.n_layers
        )
    return fake


Made = Callable[[], FakeBackend]

BACKENDS: dict[str, Made] = {
    "one cache": backend,
    "a device": lambda: backend(on_a_device=True),
    "a stream each": lambda: backend(on_a_device=True, unified=False, cells=6 * 1024),
}


def asked(
    request: int,
    prompt: Sequence[int],
    *,
    n_top: int = 2,
    of_prompt: bool = False,
    after_sampling: bool = False,
    **fields: object,
) -> Generate:
    made = spec(request, tuple(prompt), **fields)  # type: ignore[arg-type]
    return msgspec.structs.replace(made, logprobs=LogprobsWanted(n_top, after_sampling, of_prompt))


def generated(deltas: list[Delta]) -> list[TokenLogprobs]:
    for delta in deltas:
        assert len(delta.logprobs) == len(delta.tokens)
        assert [one.token.token for one in delta.logprobs] == list(delta.tokens)
    return [one for delta in deltas for one in delta.logprobs]


def check(found: Sequence[TokenLogprobs], history: Sequence[int], start: int) -> None:
    """Each token is scored by the row after all tokens before it."""
    for at, one in enumerate(found, start):
        (best,) = expected_tokens(history[:at], 1)
        logit = LOGIT if history[at] == best else OTHERS[history[at]]
        assert one.token.token == history[at]
        assert one.token.logprob == pytest.approx(logit - WHOLE, abs=1e-5)
        assert [other.token for other in one.top] == [best, 0]
        assert one.top[0].logprob == pytest.approx(LOGIT - WHOLE, abs=1e-5)


@pytest.mark.parametrize("made", BACKENDS.values(), ids=BACKENDS)
def test_each_generated_token_has_those_of_its_row_beside_other_sequences(made: Made) -> None:
    run = EngineRun(made())
    prompts = {n: tuple(tokenize(f"request {n} " * n, add_special=True)) for n in range(1, 9)}
    requests = [
        asked(n, words, max_tokens=n + 5) if n % 2 else spec(n, words, max_tokens=n + 5)
        for n, words in prompts.items()
    ]
    run.run(*requests)
    for n, words in prompts.items():
        if n % 2:
            check(generated(run.deltas(n)), [*words, *run.tokens(n)], len(words))
        else:
            assert not any(delta.logprobs for delta in run.deltas(n))


def test_accepted_drafts_have_theirs_too() -> None:
    run = EngineRun(backend(), drafter=PromptLookup())
    run.fix_costs(1.0, 0.0)
    run.run(asked(1, SAID, max_tokens=23))
    check(generated(run.deltas(1)), [*SAID, *run.tokens(1)], len(SAID))
    assert max(len(delta.tokens) for delta in run.deltas(1)) > 1


@pytest.mark.parametrize("replay", Replay)
def test_a_replay_goes_on_with_those_after_the_known_tokens(replay: Replay) -> None:
    run = EngineRun(backend())
    run.run(asked(1, SAID, max_tokens=8, replay=replay))
    whole = generated(run.deltas(1))
    tokens = tuple(run.tokens(1))
    for known in range(1, 8):
        again = EngineRun(backend())
        again.run(asked(1, SAID, tokens=tokens[:known], max_tokens=8, replay=replay))
        assert generated(again.deltas(1)) == whole[known:]


def test_a_preempted_sequence_has_each_once() -> None:
    run = EngineRun(backend(cells=160))
    prompts = {n: tuple(tokenize(f"number {n} " * 4, add_special=True)) for n in range(1, 5)}
    run.run(*(asked(n, words, max_tokens=40, of_prompt=True) for n, words in prompts.items()))
    for n, words in prompts.items():
        history = [*words, *run.tokens(n)]
        check(generated(run.deltas(n)), history, len(words))
        check(run.deltas(n)[0].prompt_logprobs[1:], history, 1)


def test_characters_are_counted_where_they_end() -> None:
    run = EngineRun(backend())
    run.run(asked(1, tokenize("[[say:aé🙂]]"), max_tokens=7))
    assert [one.n_chars for one in generated(run.deltas(1))] == [1, 0, 1, 0, 0, 0, 1]
    assert generated(run.deltas(1))[1].token.piece == "é".encode()[:1]


def test_an_end_token_has_none_and_is_spelt_among_the_best() -> None:
    run = EngineRun(backend())
    run.run(asked(1, tokenize("[[stop@2]]"), max_tokens=7))
    assert [len(delta.logprobs) for delta in run.deltas(1)] == [1, 1, 0]
    spelt = EngineRun(backend())
    spelt.run(asked(1, [BOS, *b"x"], max_tokens=1, of_prompt=True))
    assert spelt.deltas(1)[0].prompt_logprobs[0].token.piece == b"<|bos|>"


def test_after_sampling_a_greedy_token_is_certain() -> None:
    run = EngineRun(backend())
    run.run(asked(1, SAID, n_top=3, after_sampling=True, max_tokens=3))
    for one in generated(run.deltas(1)):
        assert (one.token.logprob, one.top) == (0.0, (one.token,))


@pytest.mark.parametrize("n_tokens", [1, 2, 31, 32, 33, 64, 65, 200])
@pytest.mark.parametrize("made", BACKENDS.values(), ids=BACKENDS)
def test_a_prompt_s_tokens_have_those_of_the_rows_before_them(made: Made, n_tokens: int) -> None:
    run = EngineRun(made(), batch_tokens=48)
    words = tuple(97 + at % 26 for at in range(n_tokens))
    others = [spec(n, 40, max_tokens=12) for n in (2, 3)]
    run.run(*others, asked(1, words, max_tokens=3, of_prompt=True), *[spec(4, 30, max_tokens=4)])
    first, *later = run.deltas(1)
    assert first.position == 0
    assert not any(delta.prompt_logprobs for delta in later)
    head, *rest = first.prompt_logprobs
    assert (head.token.token, head.token.logprob, head.top) == (words[0], None, ())
    history = [*words, *run.tokens(1)]
    check(rest, history, 1)
    assert len(rest) == n_tokens - 1
    check(generated(run.deltas(1)), history, n_tokens)


@pytest.mark.parametrize("made", BACKENDS.values(), ids=BACKENDS)
def test_several_prompts_share_the_spare_rows(made: Made) -> None:
    run = EngineRun(made(), drafter=PromptLookup(), batch_tokens=128)
    prompts = {n: (*SAID, *tokenize(f" {n}" * 20 * n)) for n in range(1, 6)}
    run.run(
        spec(9, SAID, max_tokens=60),
        *(asked(n, words, max_tokens=4, of_prompt=True) for n, words in prompts.items()),
    )
    for n, words in prompts.items():
        check(run.deltas(n)[0].prompt_logprobs[1:], words, 1)
        assert run.tokens(n) == expected_tokens(words, 4)


def test_a_prompt_alone_is_scored_without_a_generated_token() -> None:
    run = EngineRun(backend())
    words = tuple(tokenize("a prompt that is only scored", add_special=True))
    run.run(asked(1, words, max_tokens=0, of_prompt=True))
    (only,) = run.deltas(1)
    assert (only.tokens, only.text, only.finish) == ((), "", FinishReason.LENGTH)
    check(only.prompt_logprobs[1:], words, 1)


def test_a_prompt_with_too_many_is_refused() -> None:
    run = EngineRun(backend())
    most = MAX_PROMPT_LOGPROBS // 256
    for n_tokens, request in ((most, 1), (most + 1, 2)):
        words = (97,) * n_tokens
        run.run(asked(request, words, n_top=255, max_tokens=0, of_prompt=True))
    assert len(run.deltas(1)[0].prompt_logprobs) == most
    (refused,) = [message for message in run.messages if isinstance(message, Refused)]
    assert (refused.request, refused.param) == (2, "logprobs")


def test_a_prompt_that_is_scored_reuses_no_prefix() -> None:
    run = EngineRun(backend())
    words = tuple(tokenize("shared beginning " * 8, add_special=True))
    run.run(spec(1, words, max_tokens=4))
    run.run(asked(2, words, max_tokens=4, of_prompt=True))
    check(run.deltas(2)[0].prompt_logprobs[1:], words, 1)


def test_a_replay_of_begun_text_has_no_prompt_s_any_more() -> None:
    run = EngineRun(backend())
    run.run(asked(1, SAID, tokens=(GENERATED + 97,), max_tokens=4, of_prompt=True))
    assert not any(delta.prompt_logprobs for delta in run.deltas(1))
