"""The log probabilities that llama.cpp alone gives an answer, computed in batches of any shapes.

llama.cpp rounds otherwise in a batch of another shape. A fast replay feeds what is known in one
batch, so its log probabilities move. How far they move is no choice of gpufc's: `Alone` computes
the same tokens in the same batches, through llama.cpp's own functions only.
"""

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import llama_cpp.llama_cpp as lc
import numpy as np

from engine_worker.backend.llama.parameters import CPU_SIZES
from engine_worker.backend.llama.vocabulary import Vocabulary

_quiet = lc.llama_log_callback(lambda _level, _text, _: None)


class Alone:
    """A model in this process, with one sequence. The context is a CPU worker's: one thread, flash
    attention where llama.cpp has it, keys and values in 16 bits."""

    def __init__(self, model: Path, n_ctx: int) -> None:
        lc.llama_log_set(_quiet, None)
        lc.llama_backend_init()
        parameters = lc.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self._model = lc.llama_model_load_from_file(str(model).encode(), parameters)
        assert self._model, f"llama.cpp does not load {model}"
        context = lc.llama_context_default_params()
        context.n_ctx, context.n_seq_max = n_ctx, 1
        context.n_batch, context.n_ubatch = CPU_SIZES
        context.n_threads = context.n_threads_batch = 1
        context.flash_attn_type = lc.LLAMA_FLASH_ATTN_TYPE_AUTO
        context.swa_full = True
        self._context = lc.llama_init_from_model(self._model, context)
        assert self._context, "llama.cpp makes no context"
        self._vocabulary = Vocabulary(lc, lc.llama_model_get_vocab(self._model))
        self._ids: dict[bytes, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lc.llama_free(self._context)
        lc.llama_model_free(self._model)

    def tokens(self, text: str) -> list[int]:
        """A prompt's tokens."""
        return self._vocabulary.tokenize(text, add_special=True, parse_special=True)

    def ids(self, pieces: Sequence[bytes]) -> list[int]:
        """The tokens of these bytes."""
        if self._ids is None:
            every = range(self._vocabulary.n_tokens)
            self._ids = {self._vocabulary.piece(token): token for token in reversed(every)}
        return [self._ids[piece] for piece in pieces]

    def logprobs(self, prompt: Sequence[int], answer: Sequence[int], n_known: int) -> list[float]:
        """The log probability of each token of the answer from the first unknown one on. The prompt
        and the known tokens are computed in as few batches as hold them, each later token in one of
        its own."""
        lc.llama_memory_clear(lc.llama_get_memory(self._context), True)
        known = [*prompt, *answer[:n_known]]
        for start in range(0, len(known), CPU_SIZES.one_pass):
            self._compute(known[start : start + CPU_SIZES.one_pass])
        found = []
        for token in answer[n_known:]:
            found.append(self._logprob(token))
            self._compute([token])
        return found

    def _compute(self, tokens: Sequence[int]) -> None:
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        code = lc.llama_decode(self._context, lc.llama_batch_get_one(array, len(tokens)))
        assert code == 0, f"llama_decode returned {code}"

    def _logprob(self, token: int) -> float:
        row = np.ctypeslib.as_array(
            lc.llama_get_logits_ith(self._context, -1), (self._vocabulary.n_tokens,)
        ).astype(np.float64)
        best = float(row.max())
        return float(row[token]) - best - math.log(float(np.exp(row - best).sum()))
