"""Log probabilities of the real model are those of the logits that it computes for this test."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from numpy.typing import NDArray

from engine_worker.backend.llama.backend import LlamaBackend
from engine_worker.backend.port import Batch
from engine_worker.constraints.compiler import Compiler
from engine_worker.speculation.prompt_lookup import PromptLookup
from gpufc.config import ModelConfig, Replay
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Generate, LogprobsWanted, TokenLogprobs
from gpufc.sampling import SamplingParams
from tests.engine_worker.engine.engine_runs import EngineRun

pytestmark = pytest.mark.model

PROMPT = "one two three four one two three four one two"
N_TOKENS, N_TOP = 16, 4

Row = Rows = NDArray[np.float64]
TOLERANCE = 1e-4
"""Of rows that the same kernels computed: the rest is single precision."""
DRAFTS_TOLERANCE = 0.25
"""A draft is verified by the kernels for several tokens, which round differently from a decode."""


@pytest.fixture(scope="module")
def backend(model_path: Path) -> Iterator[LlamaBackend]:
    config = ModelConfig(model_path=str(model_path), n_ctx=256, kv_cells=512, n_threads=1)
    loaded = LlamaBackend.load(config, 2, lambda _: None)
    yield loaded
    loaded.close()


def asked(backend: LlamaBackend, **fields: object) -> Generate:
    made = Generate(
        Epoch(1),
        RequestNo(1),
        RequestId("r1"),
        choice=0,
        prompt_tokens=tuple(backend.tokenize(PROMPT, add_special=True, parse_special=True)),
        sampling=SamplingParams(seed=3, temperature=0.0),
        max_tokens=N_TOKENS,
        logprobs=LogprobsWanted(N_TOP),
    )
    return structs.replace(made, **fields)


def run(
    backend: LlamaBackend,
    wanted: Generate,
    compiler: Compiler | None = None,
    drafter: PromptLookup | None = None,
) -> EngineRun:
    """A run of one request, whose cells are forgotten afterwards."""
    made = EngineRun(backend, max_running=1, batch_tokens=64, drafter=drafter)
    made.engine._guide = compiler.guide if compiler else None
    made.fix_costs(1.0, 0.0)
    made.run(wanted)
    forget(backend)
    return made


def forget(backend: LlamaBackend) -> None:
    for slot in range(backend.facts.n_sequences):
        backend.remove(slot)


def entries(made: EngineRun) -> list[TokenLogprobs]:
    return [one for delta in made.deltas(1) for one in delta.logprobs]


def log_softmax(backend: LlamaBackend, tokens: Sequence[int], position: int) -> Rows:
    """The rows after each of these tokens, computed in one pass."""
    n = len(tokens)
    backend.begin(Batch(list(tokens), list(range(position, position + n)), [0] * n, [True] * n))
    rows = backend.logits().astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return rows


def check(
    rows: Iterable[Row], found: Sequence[TokenLogprobs], tolerance: float = TOLERANCE
) -> None:
    for row, one in zip(rows, found, strict=True):
        assert one.token.logprob == pytest.approx(row[one.token.token], abs=tolerance)
        best = np.sort(row)[: -N_TOP - 1 : -1]
        assert [top.logprob for top in one.top] == pytest.approx(best.tolist(), abs=tolerance)


def decoded(backend: LlamaBackend, prompt: Sequence[int], tokens: Sequence[int]) -> list[Row]:
    """The rows from which these tokens were chosen: prompt first, then a token at a time."""
    rows = [log_softmax(backend, prompt, 0)[-1]]
    rows += [
        log_softmax(backend, [token], len(prompt) + at)[0] for at, token in enumerate(tokens[:-1])
    ]
    forget(backend)
    return rows


@pytest.mark.parametrize(
    ("drafter", "tolerance"), [(None, TOLERANCE), (PromptLookup(), DRAFTS_TOLERANCE)]
)
def test_greedy_tokens_have_the_model_s_own_and_are_the_best(
    backend: LlamaBackend, drafter: PromptLookup | None, tolerance: float
) -> None:
    wanted = asked(backend)
    made = run(backend, wanted, drafter=drafter)
    assert (max(len(delta.tokens) for delta in made.deltas(1)) > 1) is (drafter is not None)
    check(decoded(backend, wanted.prompt_tokens, made.tokens(1)), entries(made), tolerance)
    assert [one.token.token for one in entries(made)] == made.tokens(1)
    assert all(one.token == one.top[0] for one in entries(made))


def test_a_constraint_leaves_the_model_s_own(backend: LlamaBackend) -> None:
    constraint = Constraint(ConstraintKind.REGEX, "[x-z]{3} [0-9]{4}", "regex")
    compiler = Compiler(backend)
    try:
        compiler.compile(constraint)
        wanted = asked(backend, constraint=constraint)
        made = run(backend, wanted, compiler)
    finally:
        compiler.close()
    check(decoded(backend, wanted.prompt_tokens, made.tokens(1)), entries(made))
    assert any(one.token != one.top[0] for one in entries(made))


def test_a_prompt_s_tokens_have_the_model_s_own(backend: LlamaBackend) -> None:
    wanted = asked(backend, max_tokens=0, logprobs=LogprobsWanted(N_TOP, prompt=True))
    (only,) = run(backend, wanted).deltas(1)
    rows = log_softmax(backend, wanted.prompt_tokens, 0)
    forget(backend)
    check(rows[:-1], only.prompt_logprobs[1:])
    assert [one.token.token for one in only.prompt_logprobs] == list(wanted.prompt_tokens)


def test_an_exact_replay_has_the_same_ones_to_the_last_bit(backend: LlamaBackend) -> None:
    wanted = asked(backend, replay=Replay.EXACT, sampling=SamplingParams(seed=7))
    whole = run(backend, wanted)
    tokens = tuple(whole.tokens(1))
    for n_known in range(1, N_TOKENS, 4):
        again = run(backend, structs.replace(wanted, tokens=tokens[:n_known]))
        assert entries(again) == entries(whole)[n_known:]
