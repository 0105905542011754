"""The backend on llama.cpp. The only module that imports llama_cpp: its low-level bindings.

`load` turns every unfit file or configuration into a `ModelLoadError` of one line. llama.cpp aborts
the process on some misuse, so batches are checked here first.
"""

import ctypes
from collections.abc import Sequence
from functools import partial
from itertools import compress
from typing import Self

import llama_cpp
import llama_cpp.llama_cpp as lc
import numpy as np
from numpy.typing import NDArray

from engine_worker.backend.candidates import CandidateFinder
from engine_worker.backend.llama.adapters import AppliedAdapters
from engine_worker.backend.llama.batch import BatchArrays
from engine_worker.backend.llama.bindings import ContextPointer, ModelPointer, library_of
from engine_worker.backend.llama.embedder import LlamaEmbedder
from engine_worker.backend.llama.finders import HostFinder, host_finders
from engine_worker.backend.llama.loading import Loaded, Loader
from engine_worker.backend.llama.log import LlamaLog
from engine_worker.backend.llama.passes import computes_apart
from engine_worker.backend.llama.team import Team
from engine_worker.backend.port import Batch, LoadProgress, Logits
from engine_worker.placement.ceiling import DeviceCeiling
from gpufc.config import ModelConfig
from gpufc.errors import DecodeFailed, OutOfCells

_log = LlamaLog()
# llama.cpp keeps only the pointer: this reference must live as long as the process
_log_callback = lc.llama_log_callback(lambda level, text, _: _log.write(level, text))
lc.llama_log_set(_log_callback, None)


MOST_STATE_BYTES = 64 << 20
"""A larger state is copied by llama.cpp, from stream to stream."""

STATE_SHARE = 8
"""A copy by way of the state takes three times as long for each cell, and more for the first: it
pays up to a seventh of a slot (kv/NOTES.md)."""


class LlamaBackend:
    """Implements `Backend` with one model and one context."""

    def __init__(self, loaded: Loaded) -> None:
        """Takes ownership of everything that was loaded. Use `load`."""
        self.facts, vocabulary = loaded.facts, loaded.vocabulary
        self._model: ModelPointer | None = loaded.model
        self._context: ContextPointer | None = loaded.context
        self._memory = lc.llama_get_memory(loaded.context)
        self._window = int(lc.llama_model_n_swa(loaded.model))
        self._copies_wait = False  # between streams, until the next pass
        self._vocabulary = vocabulary
        self._batch = BatchArrays(lc, lc.llama_n_batch(loaded.context))
        self._graph_finders = loaded.graph_finders
        self._new_embedder = loaded.new_embedder
        self._embedder: LlamaEmbedder | None = None
        self._host_finders: tuple[HostFinder, ...] = ()
        self._n_outputs = self._n_computed = 0  # of the last pass
        self._team: Team = loaded.team
        self._adapters = AppliedAdapters(lc, loaded.context, loaded.adapters)
        self._logits: Logits | None = None  # put together from two passes
        self._viewed_at = 0, 0  # the address and the number of rows of the view
        self._view: Logits = np.empty((0, self.facts.n_vocab), np.float32)
        facts = self.facts
        self._computing = loaded.computing
        self._may_compute_apart = facts.can_cut and not (facts.unified or facts.asynchronous)
        self.tokenize = vocabulary.tokenize
        self.piece = self.writable = vocabulary.piece
        self.written = vocabulary.written
        self.spelling = vocabulary.spelling
        self.special_tokens = vocabulary.special_tokens
        self.is_end = vocabulary.is_end
        self.end_tokens = vocabulary.end_tokens

    @classmethod
    def load(
        cls,
        config: ModelConfig,
        n_sequences: int,
        on_progress: LoadProgress,
        within: Sequence[str] = (),
        ceiling: DeviceCeiling | None = None,
    ) -> Self:
        """Load `config.model_path` with `n_sequences` slots, cached sequences included. `within`
        are the places that its files must lie in, if there are any; `ceiling` is what the process
        may take of each GPU.

        Raises `ModelLoadError`. Blocks for seconds to minutes; the GIL is released meanwhile.
        """
        version = f"{llama_cpp.__version__}/{lc.llama_version().decode()}"
        loader = Loader(lc, version, _log, config, n_sequences, on_progress, within, ceiling)
        return cls(loader.load())

    def begin(self, batch: Batch) -> None:
        self._check(batch)
        self._computing.start(partial(self._compute, batch))

    def _compute(self, batch: Batch) -> None:
        self._adapters.apply(batch.adapters)
        self._logits = None
        if batch.in_one_pass:
            self._compute_ahead(batch)
        elif self._may_compute_apart and computes_apart(batch):
            self._compute_apart(batch)
        else:
            self._decode(batch)
        is_one_pass = self._logits is None and self._n_outputs == self._n_computed
        for finder in self._graph_finders:
            finder.computed(self._n_outputs if is_one_pass else 0)

    def _compute_ahead(self, batch: Batch) -> None:
        """Compute all of the prompts but the last token, then one token of each slot.

        llama.cpp keeps memory for one graph without outputs and for one with outputs. So the graph
        of the last pass has the place and the shape of the steps before, and the device's captured
        graph is used again.
        """
        sequences = np.array(batch.sequences)
        is_last = np.append(sequences[1:] != sequences[:-1], True)
        ahead = _part(batch, ~is_last)
        if not ahead.tokens:  # of each prompt all but the last token was known
            self._decode(batch)
            return
        self._decode(ahead)
        try:
            self._decode(_part(batch, is_last))
        except OutOfCells:
            self._forget(ahead)
            raise

    def _forget(self, batch: Batch) -> None:
        """Remove the cells of each slot from its first token in the batch on."""
        starts: dict[int, int] = {}
        for slot, position in zip(batch.sequences, batch.positions, strict=True):
            starts.setdefault(slot, position)
        for slot, position in starts.items():
            self._remove(slot, position)

    def _compute_apart(self, batch: Batch) -> None:
        """Compute the decoding slots, then the prompt chunks; see `passes`."""
        is_chunk = np.isin(batch.sequences, list(batch.chunks))
        is_output = np.array(batch.outputs)
        logits = np.empty((is_output.sum(), self.facts.n_vocab), np.float32)
        decoding, prompts = _part(batch, ~is_chunk), _part(batch, is_chunk)
        self._decode(decoding)
        logits[~is_chunk[is_output]] = self._rows()
        try:
            self._decode(prompts)
        except OutOfCells:
            self._forget(decoding)
            raise
        logits[is_chunk[is_output]] = self._rows()
        self._logits = logits

    def _decode(self, batch: Batch) -> None:
        self._n_outputs, self._n_computed = sum(batch.outputs), len(batch.outputs)
        code = self._team.decode(self._context, self._batch.fill(batch), self._n_computed)
        self._copies_wait = False  # done before any code but those that end the process
        if code == 1:
            raise OutOfCells(f"no KV space for a batch of {len(batch.tokens)} tokens")
        if code != 0:
            raise DecodeFailed(f"llama_decode returned {code}: {_log.last_error() or 'no reason'}")

    @property
    def n_threads(self) -> int:
        """See `Backend`."""
        return self._team.n_threads

    def logits(self) -> Logits:
        try:
            self._computing.wait()
        except OutOfCells as err:  # each slot has as many cells as a sequence may have tokens
            raise DecodeFailed(f"a pass that cannot lack cells did: {err}") from err
        return self._rows() if self._logits is None else self._logits

    def _rows(self) -> Logits:
        # waits for the computation, and puts the rows into the batch's order
        pointer = lc.llama_get_logits(self._context)
        if self._n_outputs == 0:
            return np.empty((0, self.facts.n_vocab), np.float32)
        rows_at = ctypes.addressof(pointer.contents), self._n_outputs
        if rows_at != self._viewed_at:  # most often they are where they were
            shape = self._n_outputs, self.facts.n_vocab
            self._view, self._viewed_at = np.ctypeslib.as_array(pointer, shape), rows_at
        return self._view

    def finders(self, n_threads: int) -> tuple[CandidateFinder, ...]:
        self._host_finders = host_finders(library_of(lc), self.facts.n_vocab, n_threads)
        return (*self._graph_finders, *self._host_finders)

    def embedder(self) -> LlamaEmbedder:
        """See `Backend`."""
        if self._embedder is None:
            self._computing.settle()
            self._embedder = self._new_embedder()
            if not self.facts.generates:
                self._context = None  # it is the embedder's now
        return self._embedder

    def remove(self, slot: int, start: int = 0) -> None:
        self._computing.settle()
        self._remove(slot, start)

    def _remove(self, slot: int, start: int) -> None:
        if not lc.llama_memory_seq_rm(self._memory, slot, start, -1):
            raise DecodeFailed(f"slot {slot} cannot be cut at {start}: can_cut is false")

    def copy_prefix(self, source: int, target: int, n_tokens: int) -> None:
        self._computing.settle()
        if self.facts.unified and self.facts.can_cut:
            lc.llama_memory_seq_cp(self._memory, source, target, 0, n_tokens)
            return
        # between streams only whole slots can be copied: a range aborts the process
        if self._copies_wait or not self._copy_state(source, target):
            lc.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            self._copies_wait = True
        if lc.llama_memory_seq_pos_max(self._memory, target) >= n_tokens:
            self.remove(target, n_tokens)

    def _copy_state(self, source: int, target: int) -> bool:
        """Copy the cells in use by way of this process's memory, where they are few of the slot's:
        llama.cpp copies those that are free as well. It does so at the next pass, and a state has
        the cells of now, so no copy may be waiting.

        False if nothing was copied: where it does not pay, and for a sliding window, since the
        state lacks cells that a shorter prefix needs."""
        facts = self.facts
        stream_bytes = facts.kv_cells // facts.n_sequences * facts.cell_bytes
        if facts.asynchronous or not facts.can_cut or self._window:
            return False
        n_bytes = int(lc.llama_state_seq_get_size(self._context, source))
        if not 0 < n_bytes <= min(stream_bytes // STATE_SHARE, MOST_STATE_BYTES):
            return False
        memory = memoryview(bytearray(n_bytes))
        return self._state_from(source, memory) > 0 and self._state_into(target, memory)

    def keeps_prefix(self, slot: int, n_tokens: int) -> bool:
        """See `Backend`. `find_slot` in llama.cpp's cache takes a cell that its sequence's window
        has passed, even when others are free, and removes all older positions of that sequence."""
        if not self._window:
            return True
        self._computing.settle()
        if not self.facts.can_cut:  # the lowest position is that of the recurrent part
            return not self.facts.unified
        first = int(lc.llama_memory_seq_pos_min(self._memory, slot))
        return 0 <= first <= max(0, n_tokens - self._window)

    def state_bytes(self, slot: int) -> int:
        """See `Backend`. Behind a copy that waits for a pass, a state is not that of then."""
        self._computing.settle()
        return 0 if self._copies_wait else int(lc.llama_state_seq_get_size(self._context, slot))

    def export_state(self, slot: int, memory: memoryview) -> int:
        self._computing.settle()
        return self._state_from(slot, memory)

    def _state_from(self, slot: int, memory: memoryview) -> int:
        target = (ctypes.c_uint8 * len(memory)).from_buffer(memory)
        size = lc.llama_state_seq_get_data(self._context, target, len(memory), slot)
        del target  # it holds the memory, which the caller is about to unmap
        return int(size)

    def import_state(self, slot: int, memory: memoryview) -> bool:
        """See `Backend`. llama.cpp checks that cache types and layout agree. A copy that waits may
        be going to read the slot's cells of now."""
        self._computing.settle()
        return not self._copies_wait and self._state_into(slot, memory)

    def _state_into(self, slot: int, memory: memoryview) -> bool:
        source = (ctypes.c_uint8 * len(memory)).from_buffer(memory)
        size = lc.llama_state_seq_set_data(self._context, source, len(memory), slot)
        del source
        if not size:
            lc.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return bool(size)

    def template(self, name: str) -> str | None:
        """See `Backend`."""
        found = lc.llama_model_chat_template(self._model, name.encode())
        return found.decode("utf-8", "replace") if found else None

    @property
    def tokenizer_module(self) -> str:
        """See `Backend`."""
        return "engine_worker.backend.llama.vocabulary_process"

    def close(self) -> None:
        """See `Backend`. A second call does nothing."""
        self._computing.settle()
        context, self._context = self._context, None
        embedder, self._embedder = self._embedder, None
        model, self._model = self._model, None
        finders, self._graph_finders = self._graph_finders, ()
        host_finders, self._host_finders = self._host_finders, ()
        if embedder is not None:
            embedder.close()
        if context is not None:
            lc.llama_free(context)
        for finder in (*finders, *host_finders):
            finder.close()
        if model is not None:
            lc.llama_model_free(model)

    def _check(self, batch: Batch) -> None:
        """Refuse a batch for which llama.cpp would abort the process: see `n_outputs_max`."""
        if not self.facts.generates:
            raise DecodeFailed("a batch for a model that generates no text")
        n_tokens, n_outputs = len(batch.tokens), sum(batch.outputs)
        if not 0 < n_tokens <= self._batch.capacity or n_outputs > self.facts.max_outputs:
            raise DecodeFailed(
                f"a batch of {n_tokens} tokens with {n_outputs} outputs, of at most"
                f" {self._batch.capacity} and {self.facts.max_outputs}"
            )


def _part(batch: Batch, members: NDArray[np.bool_]) -> Batch:
    """The tokens of a batch that `members` marks."""
    return Batch(
        list(compress(batch.tokens, members)),
        list(compress(batch.positions, members)),
        list(compress(batch.sequences, members)),
        list(compress(batch.outputs, members)),
    )
