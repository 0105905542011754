"""Six requests that once got wrong text from a model with sliding windows.

The first prompt leaves a hole in the cache. The fifth one does not fit into it, and in one cache
llama.cpp gives it cells of the second one, whose window has passed them. The sixth prompt is the
first half of the second one.
"""

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from engine_worker.backend.llama.backend import LlamaBackend
from gpufc.config import KvType, KvUnified, ModelConfig
from scripts.lab.replay_rounding import unpacked
from supervisor.bench.words import WORDS
from tests.models.runs import ModelRun
from tests.models.table.alone import Alone
from tests.models.table.judging import Cell, cell, compared

N_CTX, N_TOKENS = 4096, 24
MAX_IDLE = N_RUNNING = 2
PASSES = (128,)
REQUESTS = ("a hole", "a text", "short", "the text, next turn", "long", "half the text")
LICENSE = Path(__file__).parents[3] / "LICENSE"
N_WORDS = 1000


def six_requests(model: Path, *, in_32_bits: bool) -> Iterator[tuple[KvUnified, list[Cell]]]:
    """A cell for each request, in both layouts. `in_32_bits`: with unpacked weights, and keys and
    values of 32 bits, so that hardly anything is rounded."""
    with tempfile.TemporaryDirectory() as folder:
        kv = KvType.F32 if in_32_bits else KvType.F16
        used = unpacked(model, Path(folder)) if in_32_bits else model
        with closing(Alone(used, N_CTX, kv, PASSES, beside=())) as alone:
            for layout in (KvUnified.TRUE, KvUnified.FALSE):
                with _loaded(used, layout, kv) as backend:
                    yield layout, _answered(backend, alone)


def _answered(backend: LlamaBackend, alone: Alone) -> list[Cell]:
    run, cells = ModelRun(backend, MAX_IDLE), []
    for prompt in _prompts(backend, alone):
        tokens = run.answer(prompt, N_TOKENS)
        told = cell([compared(prompt, tokens, alone.wanted(prompt, N_TOKENS), alone.moved)])
        cells.append(told.also(f"{run.n_cached} of {len(prompt)} cached"))
    return cells


def _prompts(backend: LlamaBackend, alone: Alone) -> Iterator[Sequence[int]]:
    def tokens(words: Sequence[str]) -> list[int]:
        return backend.tokenize(" ".join(words), add_special=True, parse_special=False)

    words = LICENSE.read_text().split()[:N_WORDS]
    whole = tokens(words)
    yield tokens(random.Random(1).choices(WORDS, k=300))
    yield whole
    yield tokens(random.Random(3).choices(WORDS, k=40))
    yield [*whole, *alone.wanted(whole, N_TOKENS).tokens, *whole[1:3]]
    yield tokens(random.Random(4).choices(WORDS, k=1500))
    yield tokens(words[: N_WORDS // 2])


@contextmanager
def _loaded(model: Path, layout: KvUnified, kv: KvType) -> Iterator[LlamaBackend]:
    config = ModelConfig(
        model_path=str(model),
        n_ctx=N_CTX,
        kv_unified=layout,
        cached_sequences=MAX_IDLE,
        cache_type_k=kv,
        cache_type_v=kv,
        n_threads=1,
    )
    with closing(LlamaBackend.load(config, MAX_IDLE + N_RUNNING, lambda _: None)) as backend:
        yield backend
