"""The first tokens of each row of logits, found by the device in the graph that computes them.

Beside a device the logits of 64 sequences are 12 MiB, and to look through them takes the host a
fifth of the step while the device waits. Here some more nodes do it, for all rows at once. To sort
whole rows takes four times as long as this: the k blocks of a row with the largest maxima hold its
k largest logits, so that maxima are sorted first, then what is in those blocks. What the device can
do as well, such as to put ids in order, is done there: it takes a few microseconds, and the host
tens, whose caches are cold when it has waited.

llama.cpp lets samplers add nodes to its graph (`llama_sampler_i`, experimental), but only to the
rows of their own sequence, one by one. This one belongs to a sequence that there never is, and
works on the logits of all. What it finds is held against the logits on the host before it counts
(`candidates.of_first`). The price of a sampler is memory for what it might return: three times that
of the logits on the host.
"""

import ctypes
from typing import Any, NamedTuple, Self

import numpy as np

from engine_worker.backend.llama.bindings import INT, INT64, POINTER, SIZE, TEXT, Signatures, bind
from engine_worker.backend.port import MAX_SEQUENCES, First

K = 64
"""Tokens that are found of each row."""

MIN_ROWS = 16
"""Fewer are looked through sooner on the host."""

WIDEST = 1 << 14
"""Logits to sort of each row, in all. A vocabulary that has no better divisors is left alone."""

_LOGITS = b"result_output"
"""What llama.cpp names them in its graphs."""
# enum ggml_op_pool, ggml_sort_order and ggml_type
_POOL_MAX, _ASCENDING, _DESCENDING = 0, 0, 1

_FLOAT = ctypes.c_float
_READING: Signatures = {"ggml_backend_tensor_get": (None, [POINTER, POINTER, SIZE, SIZE])}
_BUILDING: Signatures = {
    "ggml_arange": (POINTER, [POINTER, _FLOAT, _FLOAT, _FLOAT]),
    "ggml_argsort": (POINTER, [POINTER, POINTER, INT]),
    "ggml_backend_buft_get_device": (POINTER, [POINTER]),
    "ggml_backend_dev_supports_op": (ctypes.c_bool, [POINTER, POINTER]),
    "ggml_build_forward_expand": (None, [POINTER, POINTER]),
    "ggml_build_forward_select": (POINTER, [POINTER, POINTER, INT, INT]),
    "ggml_concat": (POINTER, [POINTER, POINTER, POINTER, INT]),
    "ggml_cont_1d": (POINTER, [POINTER, POINTER, INT64]),
    "ggml_get_rows": (POINTER, [POINTER, POINTER, POINTER]),
    "ggml_graph_get_tensor": (POINTER, [POINTER, TEXT]),
    "ggml_is_contiguous": (ctypes.c_bool, [POINTER]),
    "ggml_nelements": (INT64, [POINTER]),
    "ggml_pool_2d": (POINTER, [POINTER, POINTER, INT, INT, INT, INT, INT, _FLOAT, _FLOAT]),
    "ggml_reshape_2d": (POINTER, [POINTER, POINTER, INT64, INT64]),
    "ggml_reshape_3d": (POINTER, [POINTER, POINTER, INT64, INT64, INT64]),
    "ggml_set_output": (None, [POINTER]),
    "ggml_sum_rows": (POINTER, [POINTER, POINTER]),
    "ggml_view_2d": (POINTER, [POINTER, POINTER, INT64, INT64, SIZE, SIZE]),
}


class _Result(NamedTuple):
    """The tensor with what is found in a graph with `n_rows` of logits."""

    n_rows: int
    tensor: int


class DeviceTopK:
    """Belongs to one context, and then to the thread that computes with it."""

    def __init__(self, bindings: Any, building: ctypes.PyDLL, n_vocab: int, block: int) -> None:
        """Use `of`."""
        lc = self._lc = bindings
        self._building = building
        self._n_vocab, self._block = n_vocab, block
        self._device: int | None = None
        self._is_counted = False
        self._is_supported: bool | None = None
        self._result: _Result | None = None
        # llama.cpp keeps pointers to all of these
        self._interface = lc.llama_sampler_i(
            name=lc.llama_sampler_i_name(lambda _: b"first"),
            apply=lc.llama_sampler_i_apply(lambda _, _candidates: None),
            backend_init=lc.llama_sampler_i_backend_init(self._begin),
            backend_apply=lc.llama_sampler_i_backend_apply(self._extend),
        )
        self._chain = lc.llama_sampler_chain_init(lc.llama_sampler_chain_default_params())
        sampler = lc.llama_sampler_init(ctypes.byref(self._interface), None)
        lc.llama_sampler_chain_add(self._chain, sampler)
        self._config = (lc.llama_sampler_seq_config * 1)()
        self._config[0].seq_id = MAX_SEQUENCES
        self._config[0].sampler = ctypes.cast(self._chain, POINTER)

    @classmethod
    def of(cls, bindings: Any, n_vocab: int) -> Self | None:
        """None if the library or the vocabulary is not such that it can be done."""
        block = block_of(n_vocab, K)
        if block is None or not bind(bindings._lib, _READING):
            return None
        # to build a graph takes sixty short calls, each of which would have to win the lock back
        building = ctypes.PyDLL(bindings._lib._name)
        return cls(bindings, building, n_vocab, block) if bind(building, _BUILDING) else None

    def attach(self, params: Any) -> None:
        """To the `llama_context_params` of one context."""
        params.samplers, params.n_samplers = self._config, 1

    def first(self, n_rows: int) -> First | None:
        """Of the `n_rows` that were computed last, in the order of the computation.

        To be called when they have been computed, and only if every token of the batch was an
        output: then a graph with so many rows was the only one. None if it had too few.
        """
        result = self._result
        if result is None or result.n_rows != n_rows:
            return None
        found = np.empty((n_rows, 2 * K + 1), np.float32)
        read = self._lc._lib.ggml_backend_tensor_get
        read(result.tensor, found.ctypes.data, 0, found.nbytes)
        return First(found[:, :K].astype(np.int64), found[:, K : 2 * K], found[:, 2 * K])

    def close(self) -> None:
        """After the context is freed."""
        self._result = None
        self._lc.llama_sampler_free(self._chain)

    def _begin(self, _sampler: Any, buffers: int, _n_outputs: int) -> bool:
        """`llama_sampler_i.backend_init`: with the kind of buffers that the logits are in."""
        self._device = self._building.ggml_backend_buft_get_device(buffers)
        return True

    def _extend(self, _sampler: Any, context: int, graph: int, data: Any) -> None:
        """`llama_sampler_i.backend_apply`: called when a graph is built, with or without logits;
        and once before, only to count the nodes for which graphs must have room."""
        self._result = None
        data.contents.logits = None  # nothing is done to the row that it was given
        ggml = self._building
        if not self._is_counted:
            self._is_counted = True
            row = ggml.ggml_arange(context, 0.0, float(self._n_vocab), 1.0)
            ggml.ggml_build_forward_expand(graph, self._nodes(context, row, 1)[-1])
            return
        logits = ggml.ggml_graph_get_tensor(graph, _LOGITS)
        n_rows, rest = divmod(ggml.ggml_nelements(logits) if logits else 0, self._n_vocab)
        if not n_rows or rest or not ggml.ggml_is_contiguous(logits):
            return
        nodes = self._nodes(context, logits, n_rows)
        if self._is_supported is None:
            self._is_supported = all(self._supports(node) for node in nodes)
        if not self._is_supported:
            return
        found = nodes[-1]
        ggml.ggml_set_output(found)
        # if unwanted it stays in the graph: one with fewer nodes would have to be laid out anew
        is_wanted = n_rows >= MIN_ROWS
        ggml.ggml_build_forward_select(graph, (POINTER * 2)(logits, found), 2, int(is_wanted))
        if is_wanted:
            self._result = _Result(n_rows, found)

    def _supports(self, node: int) -> bool:
        """Otherwise ggml would compute it on the CPU, and copy. The host's memory has no device."""
        device = self._device
        return not device or self._building.ggml_backend_dev_supports_op(device, node)

    def _nodes(self, context: int, logits: int, n_rows: int) -> list[int]:
        """New tensors in `context`. The last one has for each row of `logits` its K first tokens by
        rising id, their logits, and the sum of all: (n_rows, 2 K + 1), float32, which is exact for
        ids below 2^24."""
        made: list[int] = []

        def make(operator: str, *arguments: Any) -> int:
            made.append(getattr(self._building, "ggml_" + operator)(context, *arguments))
            return made[-1]

        def first_of(values: int, width: int) -> int:
            order = make("argsort", values, _DESCENDING)
            return make("view_2d", order, K, n_rows, 4 * width, 0)

        def those(values: int, width: int, places: int) -> int:
            return make("get_rows", make("reshape_3d", values, 1, width, n_rows), places)

        block, n_blocks = self._block, self._n_vocab // self._block
        width = K * block
        maxima = make("pool_2d", logits, _POOL_MAX, block, 1, block, 1, 0.0, 0.0)
        blocks = first_of(maxima, n_blocks)
        left = make("get_rows", make("reshape_3d", logits, block, n_blocks, n_rows), blocks)
        all_ids = make("arange", 0.0, float(self._n_vocab), 1.0)
        all_ids = make("reshape_2d", all_ids, block, n_blocks)
        ids = make("get_rows", all_ids, make("cont_1d", blocks, K * n_rows))

        places = first_of(make("reshape_2d", left, width, n_rows), width)
        largest, ids = those(left, width, places), those(ids, width, places)
        by_id = make("argsort", make("reshape_2d", ids, K, n_rows), _ASCENDING)
        found = make("sum_rows", logits)
        for values in (largest, ids):
            ordered = make("reshape_2d", those(values, K, by_id), K, n_rows)
            found = make("concat", ordered, found, 0)
        return made


def block_of(n_vocab: int, k: int) -> int | None:
    """The size of blocks for which the fewest values are sorted; None if none divides well."""
    sizes = [size for size in range(2, n_vocab // k + 1) if n_vocab % size == 0]
    block = min(sizes, key=lambda size: n_vocab // size + k * size, default=0)
    return block if block and n_vocab // block + k * block <= WIDEST else None
