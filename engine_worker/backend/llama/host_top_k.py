"""The largest logits of many rows, found by ggml's own operator on the host's threads.

ggml's threads share work that Python's threads cannot, because each short call of numpy needs the
interpreter's lock. One call computes `ggml_top_k` of all rows. In the same call `ggml_mul_mat` by a
column of ones computes the rows' sums, which tell whether a row has NaN or infinity.
"""

import ctypes
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from engine_worker.backend.candidates import (
    OUT_OF_REACH,
    Candidates,
    ChangedLogits,
    Counts,
    Logits,
    RowMasks,
    apply_temporarily,
    certain_candidates,
)
from engine_worker.backend.llama.bindings import INT, INT64, POINTER, SIZE, Signatures, bind
from engine_worker.tuning import H100

MIN_THREADS = H100.host_top_k.least_threads
MIN_ROWS = H100.host_top_k.least_rows
"""Rows of a step."""

_F32 = 0
"""GGML_TYPE_F32"""
_ALIGNMENT = 32
"""TENSOR_ALIGNMENT of ggml-backend.cpp. ggml aborts the process for other memory."""
_N_TENSORS = 4


class _InitParams(ctypes.Structure):
    """struct ggml_init_params"""

    _fields_ = [("mem_size", SIZE), ("mem_buffer", POINTER), ("no_alloc", ctypes.c_bool)]


_SIGNATURES: Signatures = {
    "ggml_init": (POINTER, [_InitParams]),
    "ggml_free": (None, [POINTER]),
    "ggml_tensor_overhead": (SIZE, []),
    "ggml_graph_overhead": (SIZE, []),
    "ggml_new_tensor_2d": (POINTER, [POINTER, INT, INT64, INT64]),
    "ggml_mul_mat": (POINTER, [POINTER, POINTER, POINTER]),
    "ggml_top_k": (POINTER, [POINTER, POINTER, INT]),
    "ggml_new_graph": (POINTER, [POINTER]),
    "ggml_build_forward_expand": (None, [POINTER, POINTER]),
    "ggml_backend_cpu_init": (POINTER, []),
    "ggml_backend_cpu_set_n_threads": (None, [POINTER, INT]),
    "ggml_backend_cpu_buffer_from_ptr": (POINTER, [POINTER, SIZE]),
    "ggml_backend_buffer_free": (None, [POINTER]),
    "ggml_backend_tensor_alloc": (INT, [POINTER, POINTER, POINTER]),
    "ggml_backend_graph_compute": (INT, [POINTER, POINTER]),
    "ggml_backend_free": (None, [POINTER]),
}


class Top(NamedTuple):
    """The `k` tokens of each row with the largest logits, in any order, of equal logits any: `ids`
    (n_rows, k). `sums` (n_rows,) of all logits of a row are finite only if all of these are."""

    ids: NDArray[np.int32]
    sums: Logits


class _Graph(NamedTuple):
    """The computation for logits at one address. `context` and `buffers` are to be freed.

    `memory` is aligned, and holds a column of ones, the rows' `sums` and the `ids`.
    """

    address: int
    n_rows: int
    k: int
    graph: int
    context: int
    buffers: tuple[int, int]
    memory: NDArray[np.uint8]
    sums: Logits
    ids: NDArray[np.int32]


class HostTopK:
    """Implements `HostFinder`. Belongs to one thread.

    Answers `min_rows` rows and more. Honours changes of any kind; leaves out rows with masks, which
    rarely allow `k` of the k + 1 found tokens, and rows in which another token may tie with the
    last. Declines if no row needs more than its largest logit, which argmax finds in less time, and
    if a logit is not finite. A model that masks tokens with -inf does so in every step: from the
    first such step on it declines.
    """

    def __init__(
        self, library: ctypes.CDLL, n_vocab: int, n_threads: int, min_rows: int = MIN_ROWS
    ) -> None:
        """`library` is libllama, or any through which ggml's symbols are found. Use `of`."""
        self._library = library
        self._min_rows = min_rows
        self._is_blind = False
        self._n_vocab = n_vocab
        self._backend = library.ggml_backend_cpu_init()
        library.ggml_backend_cpu_set_n_threads(self._backend, n_threads)
        self._graph: _Graph | None = None

    @classmethod
    def offer(cls, library: ctypes.CDLL, n_vocab: int, n_threads: int) -> Self | None:
        """The finder with so many threads, if there can be one and it pays."""
        return cls.of(library, n_vocab, n_threads) if n_threads >= MIN_THREADS else None

    @classmethod
    def of(
        cls, library: ctypes.CDLL, n_vocab: int, n_threads: int, min_rows: int = MIN_ROWS
    ) -> Self | None:
        """None if the library lacks a function."""
        return cls(library, n_vocab, n_threads, min_rows) if bind(library, _SIGNATURES) else None

    def find(
        self, logits: Logits, k: Counts, changed: ChangedLogits, masks: RowMasks | None
    ) -> Candidates | None:
        if self._is_blind or len(logits) < self._min_rows:
            return None
        if masks is not None:
            k = k.copy()
            k[masks.rows] = 0
        k_max = int(k.max())
        if k_max <= 1 or np.count_nonzero(k) < self._min_rows:
            return None
        if not np.isfinite(changed.before).all():
            self._is_blind = True
            return None
        # -inf would make the sums say nothing
        within = changed._replace(after=np.maximum(changed.after, OUT_OF_REACH))
        with apply_temporarily(within, logits.reshape(-1)):
            top = self.top(logits, k_max + 1)
            if top is None:
                return None
            if not np.isfinite(top.sums).all():
                self._is_blind = bool((top.sums < np.inf).all())
                return None
            ids = np.sort(top.ids, axis=1).astype(np.int64)
            starts = np.arange(0, logits.size, self._n_vocab)[:, None]
            values = logits.reshape(-1).take(ids + starts, mode="clip")
        return certain_candidates(ids, values, None, k)

    def top(self, logits: Logits, k: int) -> Top | None:
        """The `k` largest logits of each row; valid until the next call. None for memory that ggml
        does not take."""
        address = logits.ctypes.data
        if address % _ALIGNMENT or not logits.flags.c_contiguous or k > self._n_vocab:
            return None
        found = self._graph
        if found is None or (found.address, found.n_rows, found.k) != (address, len(logits), k):
            self._free()
            found = self._graph = self._build(address, len(logits), k)
        if self._library.ggml_backend_graph_compute(self._backend, found.graph) != 0:
            return None
        return Top(found.ids, found.sums)

    def close(self) -> None:
        """See `HostFinder`."""
        self._free()
        self._library.ggml_backend_free(self._backend)

    def _build(self, address: int, n_rows: int, k: int) -> _Graph:
        ggml, n_vocab = self._library, self._n_vocab
        n_bytes = _N_TENSORS * ggml.ggml_tensor_overhead() + ggml.ggml_graph_overhead()
        context = ggml.ggml_init(_InitParams(n_bytes, None, True))
        logits = ggml.ggml_new_tensor_2d(context, _F32, n_vocab, n_rows)
        ones = ggml.ggml_new_tensor_2d(context, _F32, n_vocab, 1)
        sums = ggml.ggml_mul_mat(context, logits, ones)
        ids = ggml.ggml_top_k(context, logits, k)
        graph = ggml.ggml_new_graph(context)
        for result in (sums, ids):
            ggml.ggml_build_forward_expand(graph, result)

        sizes = [4 * n_vocab, 4 * n_rows, 4 * n_rows * k]
        starts = np.cumsum([0, *(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)])
        memory = aligned_memory(int(starts[-1]))
        theirs = ggml.ggml_backend_cpu_buffer_from_ptr(address, 4 * n_vocab * n_rows)
        ours = ggml.ggml_backend_cpu_buffer_from_ptr(memory.ctypes.data, memory.nbytes)
        ggml.ggml_backend_tensor_alloc(theirs, logits, address)
        views = []
        for tensor, start, size in zip((ones, sums, ids), starts, sizes, strict=False):
            ggml.ggml_backend_tensor_alloc(ours, tensor, memory.ctypes.data + int(start))
            views.append(memory[start : start + size])
        views[0].view(np.float32)[:] = 1.0
        return _Graph(
            address,
            n_rows,
            k,
            graph,
            context,
            (theirs, ours),
            memory,
            views[1].view(np.float32),
            views[2].view(np.int32).reshape(n_rows, k),
        )

    def _free(self) -> None:
        graph, self._graph = self._graph, None
        if graph is None:
            return
        for buffer in graph.buffers:
            self._library.ggml_backend_buffer_free(buffer)
        self._library.ggml_free(graph.context)


def aligned_memory(n_bytes: int) -> NDArray[np.uint8]:
    """Memory that ggml takes, of shape (n_bytes,)."""
    memory = np.empty(n_bytes + _ALIGNMENT, np.uint8)
    return memory[-memory.ctypes.data % _ALIGNMENT :][:n_bytes]
