"""Drafts from a second, smaller model with the same vocabulary: what it would say itself, greedily.

It computes all sequences of a step together, one position after another. Everything about it can
be lost: a sequence that it cannot follow goes on without drafts.
"""

import logging
import time
from collections.abc import Sequence

import numpy as np
from msgspec import Struct, structs

from engine_worker.backend.port import Backend, Batch
from engine_worker.speculation.drafter import Draft, DraftRequest
from gpufc.config import ModelConfig, Speculation
from gpufc.errors import ModelLoadError, OutOfCells
from gpufc.ids import RequestNo

logger = logging.getLogger(__name__)

_MEMORY = 16
"""Of how many positions, about, the measured cost is a mean."""

_SAMPLED_PIECES = 1024
"""Tokens of the vocabulary whose spelling is compared, about."""


def configuration(config: ModelConfig) -> ModelConfig:
    """How the draft model of a model is loaded: as that one, from its own file.

    Raises `ModelLoadError` if no file is named.
    """
    if config.draft_model_path is None:
        raise ModelLoadError("speculation = draft needs draft_model_path")
    return structs.replace(
        config,
        model_path=config.draft_model_path,
        draft_model_path=None,
        kv_cells=None,
        cached_sequences=0,
        speculation=Speculation.NONE,
    )


def require_same_vocabulary(model: Backend, draft: Backend) -> None:
    """Raises `ModelLoadError` unless a token means the same to both, as far as a sample tells."""
    sizes = model.facts.n_vocab, draft.facts.n_vocab
    if sizes[0] != sizes[1]:
        raise ModelLoadError(
            f"the draft model has {sizes[1]:,} tokens and the model {sizes[0]:,}: it must have"
            " the same vocabulary"
        )
    sample = {*range(0, sizes[0], max(1, sizes[0] // _SAMPLED_PIECES)), *model.end_tokens}
    for token in sorted(sample):
        spellings = model.spelling(token), draft.spelling(token)
        if spellings[0] != spellings[1]:
            raise ModelLoadError(
                f"the draft model spells token {token} {spellings[1]!r} and the model"
                f" {spellings[0]!r}: it must have the same vocabulary"
            )


class _Stream(Struct):
    """A sequence of the draft model: `tokens` have cells in `slot`. The first `n_known` of them
    were not drafted, so they stay."""

    slot: int
    tokens: list[int]
    n_known: int = 0


class _Growing(Struct):
    """A draft in the making: what is to be computed next, and what came out so far."""

    stream: _Stream
    pending: list[int]
    limit: int
    drafted: list[int]


class DraftModel:
    """Implements `drafting.Drafter`. Owns its backend, whose sequences are all its own.

    A sequence gets no drafts while its prompt is being computed, one batch a step; when there is
    no slot for it; or once it did not fit into the draft model's context or cells.
    """

    def __init__(self, backend: Backend) -> None:
        self.position_s: float | None = 0.0
        self._n_timed = 0
        self._backend = backend
        self._free = list(range(backend.facts.n_sequences))
        self._streams: dict[RequestNo, _Stream] = {}
        self._given_up: set[RequestNo] = set()

    def assumed_rate(self, evidence: int) -> float:
        """See `Drafter`. Here evidence is the position in the draft."""
        return 0.7

    def draft_all(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """See `Drafter`. Raises `DecodeFailed`: the process must not go on."""
        begun = self._begun(requests)
        growing = sorted(begun.values(), key=lambda each: each.stream.slot)
        while active := [each for each in growing if each.pending]:
            if not self._compute(active):
                break
        return [
            Draft(begun[request.key].drafted if request.key in begun else [], 0)
            for request in requests
        ]

    def forget(self, key: RequestNo) -> None:
        """See `Drafter`."""
        self._given_up.discard(key)
        stream = self._streams.pop(key, None)
        if stream is not None:
            self._backend.remove(stream.slot)
            self._free.append(stream.slot)

    def close(self) -> None:
        """Free the model."""
        self._backend.close()

    def _begun(self, requests: Sequence[DraftRequest]) -> dict[RequestNo, _Growing]:
        """For each sequence that can be drafted for, what has to be computed of it first."""
        begun = {}
        room = self._backend.facts.batch_tokens
        for request in requests:
            stream = self._stream(request)
            if stream is None or room == 0:
                continue
            self._cut(stream, request.tokens)
            pending = request.tokens[len(stream.tokens) :]
            # of a long prompt one piece a step, and no draft before the last
            limit = min(request.limit, self._room(request)) if len(pending) <= room else 0
            begun[request.key] = _Growing(stream, pending[:room], limit, [])
            room -= len(begun[request.key].pending)
        return begun

    def _stream(self, request: DraftRequest) -> _Stream | None:
        key = request.key
        if request.limit <= 0 or key in self._given_up:
            return None
        if self._room(request) <= 0:
            self._give_up(key)
            return None
        if key not in self._streams and self._free:
            self._streams[key] = _Stream(self._free.pop(), [])
        return self._streams.get(key)

    def _room(self, request: DraftRequest) -> int:
        return self._backend.facts.n_ctx - len(request.tokens)

    def _cut(self, stream: _Stream, tokens: list[int]) -> None:
        """Forget what was drafted and did not come; the last token is computed in any case."""
        most = min(len(stream.tokens), len(tokens) - 1)
        end = min(stream.n_known, most)
        while end < most and stream.tokens[end] == tokens[end]:
            end += 1
        if end < len(stream.tokens):
            self._backend.remove(stream.slot, end)
            del stream.tokens[end:]
        stream.n_known = len(tokens)

    def _compute(self, active: list[_Growing]) -> bool:
        """One position further for each. False if there was no room for it."""
        began = time.monotonic()
        try:
            self._backend.begin(_batch(active))
        except OutOfCells:
            self._give_up_longest()
            return False
        rows = iter(np.argmax(self._backend.logits(), axis=1).tolist())
        for each in active:
            each.stream.tokens += each.pending
            each.pending = []
            if each.limit:
                token = next(rows)
                each.drafted.append(token)
                if len(each.drafted) < each.limit and not self._backend.is_end(token):
                    each.pending = [token]
        self._timed(time.monotonic() - began)
        return True

    def _timed(self, seconds: float) -> None:
        self._n_timed = min(self._n_timed + 1, _MEMORY)
        before = self.position_s or 0.0
        self.position_s = before + (seconds - before) / self._n_timed

    def _give_up_longest(self) -> None:
        longest = max(self._streams, key=lambda key: len(self._streams[key].tokens))
        logger.warning("draft_cells_short request=%d goes on without drafts", longest)
        self._give_up(longest)

    def _give_up(self, key: RequestNo) -> None:
        self.forget(key)
        self._given_up.add(key)


def _batch(active: list[_Growing]) -> Batch:
    """`active` by slot, as llama.cpp likes its sequences."""
    batch = Batch([], [], [], [])
    for each in active:
        n_tokens, start = len(each.pending), len(each.stream.tokens)
        batch.tokens += each.pending
        batch.positions += range(start, start + n_tokens)
        batch.sequences += [each.stream.slot] * n_tokens
        batch.outputs += [False] * (n_tokens - 1) + [each.limit > 0]
    return batch
