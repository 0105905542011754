"""The fake engine's embeddings and scores: a pure function of an input's tokens.

A directive of a prompt that commits a fault at once, such as `[[segv@-1]]`, does so in an input
too.
"""

import random
import time
from collections.abc import Sequence

import numpy as np

from engine_worker.backend.embedder import PassLimits, Span, Vector
from engine_worker.backend.fake.faults import Commit, Script, first_time
from engine_worker.backend.fake.vocabulary import (
    FAULTS,
    IN_PROMPT,
    MAX_DIRECTIVE,
    NAN,
    State,
    advance,
)
from gpufc.errors import DecodeFailed

EMBEDDING_SIZE = 8
EMBEDDING_TOKENS = 512
LIMITS = PassLimits(4, 64, may_split=True)


def expected_vector(tokens: Sequence[int]) -> Vector:
    """The embedding of an input, of length 1."""
    vector = _vector(tokens, EMBEDDING_SIZE)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def _vector(tokens: Sequence[int], size: int) -> Vector:
    numbers = random.Random(repr(list(tokens)))  # noqa: S311 - no secret
    return np.array([numbers.uniform(-1, 1) for _ in range(size)], np.float32)


class FakeEmbedder:
    """Implements `Embedder`. It has an exact account of the beginnings of inputs."""

    limits = LIMITS

    def __init__(self, script: Script, commit: Commit, *, ranks: bool) -> None:
        self._script, self._commit = script, commit
        self._size = 1 if ranks else EMBEDDING_SIZE
        self._begun: dict[int, list[int]] = {}

    def compute(self, spans: Sequence[Span]) -> list[Vector]:
        n_tokens = sum(len(span.tokens) for span in spans)
        if not 0 < n_tokens <= LIMITS.n_tokens or len(spans) > LIMITS.n_inputs:
            raise DecodeFailed(f"a pass of {len(spans)} inputs and {n_tokens} tokens")
        time.sleep(self._script.step_ms / 1e3 + n_tokens * self._script.prefill_us / 1e6)
        return [vector for span in spans for vector in self._computed(span)]

    def drop(self, slot: int) -> None:
        del self._begun[slot]

    def close(self) -> None:
        self._begun.clear()

    def _computed(self, span: Span) -> list[Vector]:
        tokens = self._begun.pop(span.slot, [])
        if len(tokens) != span.start:
            raise DecodeFailed(f"slot {span.slot} goes on at {span.start}, and has {len(tokens)}")
        tokens = [*tokens, *span.tokens]
        if not span.is_last:
            self._begun[span.slot] = tokens
            return []
        is_nan = self._meet_faults(tokens)
        vector = _vector(tokens, self._size)
        return [vector * np.nan if is_nan else vector]

    def _meet_faults(self, tokens: Sequence[int]) -> bool:
        """Commit the faults of an input. True if one is `NAN`, a fault of the vector."""
        state = State()
        for end, token in enumerate(tokens):
            before = tokens[max(0, end - MAX_DIRECTIVE) : end]
            state = advance(state, token, lambda before=before: before)  # type: ignore[misc]
        is_nan = False
        for entry in state.directives:
            if entry.kind in FAULTS and entry.at == IN_PROMPT and first_time(entry.once):
                if entry.kind == NAN:
                    is_nan = True
                else:
                    self._commit(entry.kind, entry.code)
        return is_nan
