"""Drafts from a second, smaller model with the same vocabulary, decoded greedily.

The draft model computes all sequences of a step together, one position after another. Its state can
always be given up: a sequence that it cannot follow is decoded without drafts.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct, structs

from engine_worker.backend.port import Backend, Batch
from engine_worker.backend.profile import profile_of
from engine_worker.model_file.gguf_header import read_header
from engine_worker.model_file.purpose import Purpose, purpose_of
from engine_worker.speculation.drafter import Draft, Drafter, DraftRequest, Loads
from gpufc.config import BackendKind, ModelConfig
from gpufc.errors import ModelLoadError, OutOfCells
from gpufc.ids import RequestNo

logger = logging.getLogger(__name__)

_MEMORY = 16
"""The cost of a position is a running mean over about this many."""

_SAMPLED_PIECES = 1024
"""About this many tokens of both vocabularies are compared by spelling."""


def load_with_model(config: ModelConfig, loads: Loads) -> tuple[Backend, Drafter | None]:
    """See `LoadWith`."""
    if not serves(config):
        logger.warning("draft_model_not_loaded reason=the model cannot verify drafts")
        return loads.model(), None
    draft = loads.beside(configuration(config))
    require_cuttable(draft)
    backend = loads.model()
    require_same_vocabulary(backend, draft)
    return backend, DraftModel(draft)


def configuration(config: ModelConfig) -> ModelConfig:
    """The settings for the draft model: those of its model, with its own file.

    Raises `ModelLoadError` if `draft_model_path` is not set.
    """
    if config.draft_model_path is None:
        raise ModelLoadError("speculation = draft needs draft_model_path")
    return structs.replace(
        config,
        model_path=config.draft_model_path,
        draft_model_path=None,
        model_sha256=None,
        kv_cells=None,
        cached_sequences=0,
    )


def require_cuttable(draft: Backend) -> None:
    """Raise `ModelLoadError` if the draft model's state could not lose a rejected draft, or if it
    generates no text."""
    if not draft.facts.generates:
        raise ModelLoadError(
            f"the draft model ({draft.facts.architecture}) generates no text; choose another"
            " draft_model_path"
        )
    if not profile_of(draft.facts).cuts_prefixes:
        raise ModelLoadError(
            f"the draft model ({draft.facts.architecture}) is recurrent or hybrid: its state cannot"
            " be taken back to the last accepted token; choose another draft_model_path"
        )


def serves(config: ModelConfig) -> bool:
    """Whether drafts can be verified by the model: not where its state cannot be cut, or where it
    generates no text.

    Raises `ModelLoadError` for a broken model file.
    """
    if config.backend is not BackendKind.LLAMA or config.model_path is None:
        return True
    header = read_header(Path(config.model_path))
    return purpose_of(header) is Purpose.GENERATE and not header.state_layers


def require_same_vocabulary(model: Backend, draft: Backend) -> None:
    """Raise `ModelLoadError` unless both models spell a sample of tokens alike."""
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
    """A sequence of the draft model: exactly `tokens` have cells in `slot`.

    The first `n_known` tokens were given by a request, not drafted, so they never change.
    """

    slot: int
    tokens: list[int]
    n_known: int = 0


class _Growing(Struct):
    """A draft in progress: `pending` tokens are computed next, `drafted` ones came out so far.

    With `limit` 0 the pending tokens are computed and nothing is drafted.
    """

    stream: _Stream
    pending: list[int]
    limit: int
    drafted: list[int]


class DraftModel:
    """Implements `Drafter`. Owns the draft model's backend and every slot in it.

    A sequence has no drafts while the draft model computes its prompt (one batch a step), while no
    slot is free, and from the moment that it does not fit into the draft model's context or cells.
    """

    def __init__(self, backend: Backend) -> None:
        self.position_s: float | None = 0.0
        self._n_timed = 0
        self._backend = backend
        self._free = list(range(backend.facts.n_sequences))
        self._streams: dict[RequestNo, _Stream] = {}
        self._given_up: set[RequestNo] = set()

    def assumed_rate(self, evidence: int) -> float:
        """Evidence is the position in the draft."""
        return 0.7

    def draft_all(self, requests: Sequence[DraftRequest]) -> list[Draft]:
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
        self._given_up.discard(key)
        stream = self._streams.pop(key, None)
        if stream is not None:
            self._backend.remove(stream.slot)
            self._free.append(stream.slot)

    def close(self) -> None:
        self._backend.close()

    def _begun(self, requests: Sequence[DraftRequest]) -> dict[RequestNo, _Growing]:
        """The drafts to make, each with the known tokens that have to be computed first."""
        begun = {}
        room = self._backend.facts.batch_tokens
        for request in requests:
            stream = self._stream(request)
            if stream is None or room == 0:
                continue
            self._cut(stream, request.tokens)
            pending = request.tokens[len(stream.tokens) :]
            # a long prompt takes one piece a step, and its first draft follows the last piece
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
        """Remove the cells of drafted tokens that were not accepted.

        The last token loses its cell in any case: its logits are needed for the first draft.
        """
        most = min(len(stream.tokens), len(tokens) - 1)
        end = min(stream.n_known, most)
        while end < most and stream.tokens[end] == tokens[end]:
            end += 1
        if end < len(stream.tokens):
            self._backend.remove(stream.slot, end)
            del stream.tokens[end:]
        stream.n_known = len(tokens)

    def _compute(self, active: list[_Growing]) -> bool:
        """Compute one batch: the pending tokens of all. False when the draft model has no cells."""
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
        logger.warning("draft_cells_short request=%d: decoding it without drafts", longest)
        self._give_up(longest)

    def _give_up(self, key: RequestNo) -> None:
        self.forget(key)
        self._given_up.add(key)


def _batch(active: list[_Growing]) -> Batch:
    """The pending tokens of all, in the order of `active`.

    `active` is sorted by slot, because llama.cpp computes neighbouring slots in one forward pass.
    """
    batch = Batch([], [], [], [])
    for each in active:
        n_tokens, start = len(each.pending), len(each.stream.tokens)
        batch.tokens += each.pending
        batch.positions += range(start, start + n_tokens)
        batch.sequences += [each.stream.slot] * n_tokens
        batch.outputs += [False] * (n_tokens - 1) + [each.limit > 0]
    return batch
