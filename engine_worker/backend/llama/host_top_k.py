"""The first tokens of many rows by ggml's own operator, on all threads at once.

What Python's threads cannot share, as each short call needs the interpreter's lock, ggml's do: one
call computes `ggml_top_k` of all rows, and with `ggml_mul_mat` by a column of ones their sums,
which tell whether a row has NaN or infinity.
"""

import ctypes
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from engine_worker.backend.llama.bindings import INT, INT64, POINTER, SIZE, Signatures, bind
from engine_worker.backend.port import Logits, Top

_F32 = 0
"""GGML_TYPE_F32"""
_ALIGNMENT = 32
"""TENSOR_ALIGNMENT of ggml-backend.cpp: memory that is not so aligned ends the process."""
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


class _Graph(NamedTuple):
    """What is computed for logits at one address; `context` and `buffers` are to be freed."""

    address: int
    n_rows: int
    k: int
    graph: int
    context: int
    buffers: tuple[int, int]
    memory: NDArray[np.uint8]
    """Aligned: a column of ones, the rows' sums and the tokens."""
    sums: Logits
    ids: NDArray[np.int32]


class GgmlTopK:
    """Implements `candidates.TopK`. Belongs to one thread."""

    def __init__(self, library: ctypes.CDLL, n_vocab: int, n_threads: int) -> None:
        """`library` is libllama, or any that ggml's symbols are found through. Use `of`."""
        self._library = library
        self._n_vocab = n_vocab
        self._backend = library.ggml_backend_cpu_init()
        library.ggml_backend_cpu_set_n_threads(self._backend, n_threads)
        self._graph: _Graph | None = None

    @classmethod
    def of(cls, library: ctypes.CDLL, n_vocab: int, n_threads: int) -> Self | None:
        """None if the library does not export what it takes."""
        return cls(library, n_vocab, n_threads) if bind(library, _SIGNATURES) else None

    def first(self, logits: Logits, k: int) -> Top | None:
        """See `TopK`. None also for memory that ggml does not take."""
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
        """Free what is ggml's. Nothing may be called afterwards."""
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
    """Memory that ggml takes, shape (n_bytes,)."""
    memory = np.empty(n_bytes + _ALIGNMENT, np.uint8)
    return memory[-memory.ctypes.data % _ALIGNMENT :][:n_bytes]
