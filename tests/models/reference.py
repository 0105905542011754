"""Greedy text from llama.cpp alone: one sequence, an empty cache, one prompt at a time.

Uses the bindings directly and nothing of the engine.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import llama_cpp.llama_cpp as lc
import numpy as np

from gpufc.config import KvType

BATCH_TOKENS = 128

CLEAR = 0.02
"""A smaller lead of the best logit over the next is no evidence: llama.cpp's kernels for one token
and for several round differently, and a mixture of experts enlarges the difference."""

ENOUGH = 8
"""Clear tokens of an answer that is compared. Each further ending costs a whole prompt."""

_ENDINGS = ((70, 3), (50,), (90, 40), (60, 61, 62))


class Answer(NamedTuple):
    """The tokens after one prompt, and the lead of each over the second-best token."""

    tokens: list[int]
    leads: list[float]

    @property
    def n_clear(self) -> int:
        """The number of tokens before the first one without a clear lead."""
        unclear = [at for at, lead in enumerate(self.leads) if lead < CLEAR]
        return min(unclear, default=len(self.leads))


class Reference:
    """One model in one context of llama.cpp. `close` frees both."""

    N_SEQUENCES = 1

    def __init__(
        self, path: Path, n_ctx: int, kv: KvType = KvType.F16, *, flash: bool = True
    ) -> None:
        """By default with flash attention where a worker on a CPU has it. Its sums depend on the
        shape of a batch; without it only those of matrices do."""
        lc.llama_backend_init()
        params = lc.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = lc.llama_model_load_from_file(str(path).encode(), params)
        context = lc.llama_context_default_params()
        context.n_ctx, context.n_seq_max = n_ctx, self.N_SEQUENCES
        context.kv_unified = True
        context.n_batch = context.n_ubatch = BATCH_TOKENS
        context.n_threads = context.n_threads_batch = 1
        if kv is not KvType.F16 or not flash:
            context.flash_attn_type = lc.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context.swa_full = True
        context.type_k = context.type_v = {KvType.F16: 1, KvType.F32: 0}[kv]
        self._context = lc.llama_init_from_model(self._model, context)
        self._vocab = lc.llama_model_get_vocab(self._model)
        self._answers: dict[tuple[tuple[int, ...], int], Answer] = {}
        self._n_vocab = lc.llama_vocab_n_tokens(self._vocab)

    def close(self) -> None:
        lc.llama_free(self._context)
        lc.llama_model_free(self._model)

    def answer(self, prompt: Sequence[int], n_tokens: int) -> Answer:
        """The next `n_tokens` after `prompt`, or fewer before an end token. Each is computed once:
        tests of several layouts ask the same."""
        question = (tuple(prompt), n_tokens)
        if question not in self._answers:
            self._answers[question] = self._compute(prompt, n_tokens)
        return self._answers[question]

    def _compute(self, prompt: Sequence[int], n_tokens: int) -> Answer:
        lc.llama_memory_clear(lc.llama_get_memory(self._context), True)
        found = Answer([], [])
        pending = list(prompt)
        while len(found.tokens) < n_tokens:
            logits = self._logits(pending)
            second, best = np.sort(logits)[-2:]
            token = int(np.argmax(logits))
            if lc.llama_vocab_is_eog(self._vocab, token):
                break
            found.tokens.append(token)
            found.leads.append(float(best - second))
            pending = found.tokens[-1:]
        return found

    def rows(self, tokens: Sequence[int]) -> np.ndarray:
        """The logits after each token, of shape (tokens, vocabulary)."""
        lc.llama_memory_clear(lc.llama_get_memory(self._context), True)
        batch, found = lc.llama_batch_init(BATCH_TOKENS, 0, 1), []
        for start in range(0, len(tokens), BATCH_TOKENS):
            part = tokens[start : start + BATCH_TOKENS]
            batch.n_tokens = len(part)
            for at, token in enumerate(part):
                batch.token[at], batch.pos[at], batch.logits[at] = token, start + at, 1
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
            assert lc.llama_decode(self._context, batch) == 0
            pointer = lc.llama_get_logits(self._context)
            found.append(np.ctypeslib.as_array(pointer, (len(part), self._n_vocab)).copy())
        lc.llama_batch_free(batch)
        return np.concatenate(found)

    def surest(self, stem: Sequence[int], n_tokens: int) -> tuple[list[int], Answer]:
        """Of some endings of a prompt the first one with enough clear tokens, or else the one with
        the most, and its answer."""
        answers: list[tuple[list[int], Answer]] = []
        for ending in _ENDINGS:
            prompt = [*stem, *ending]
            answers.append((prompt, self.answer(prompt, n_tokens)))
            if answers[-1][1].n_clear >= min(n_tokens, ENOUGH):
                break
        return max(answers, key=lambda pair: pair[1].n_clear)

    def _logits(self, tokens: list[int]) -> np.ndarray:
        for start in range(0, len(tokens), BATCH_TOKENS):
            part = tokens[start : start + BATCH_TOKENS]
            array = (ctypes.c_int32 * len(part))(*part)  # the batch only points to it
            batch = lc.llama_batch_get_one(array, len(part))
            assert lc.llama_decode(self._context, batch) == 0
        row = lc.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(row, (self._n_vocab,)).copy()
