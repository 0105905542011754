"""The largest logits of each row, found by the device in the graph that computes the logits.

Some nodes are added to the graph. They do not sort whole rows: the k blocks of a row with the
largest maxima hold its k largest logits. So they sort maxima of blocks, then the logits in the best
blocks, and put the ids in order. The host then reads a few numbers of each row instead of all.

llama.cpp lets samplers add nodes to its graph (`llama_sampler_i`, experimental), but only to the
rows of their own sequence, one by one. This sampler belongs to a sequence that never exists, and
works on the logits of all rows. Its price is memory for the results of samplers: three times that
of the logits on the host.
"""

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np

from engine_worker.backend.candidates import (
    Candidates,
    ChangedLogits,
    Counts,
    Logits,
    Places,
    RowMasks,
    certain_candidates,
    few_candidates,
    joined,
)
from engine_worker.backend.llama.bindings import (
    INT,
    INT64,
    POINTER,
    SIZE,
    TEXT,
    Bindings,
    Parameters,
    Signatures,
    bind,
    library_of,
)
from engine_worker.backend.port import MAX_SEQUENCES
from engine_worker.tuning import H100

K = 64
"""Tokens that are found of each row."""

MIN_ROWS = H100.device_top_k.least_rows
"""Rows of a step."""

WIDEST = 1 << 14
"""Logits of a row to sort, in all. A vocabulary without divisors for that has no finder."""

_CHECKED = 16
"""Every such found logit is compared with the row. Four equal ones of 64 are no coincidence."""

_LOGITS = b"result_output"
"""The name of the logits in llama.cpp's graphs."""
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


class Found(NamedTuple):
    """The tokens of each row with the K largest logits, of equal logits any: `ids` and `logits`
    (n_rows, K), by rising id. `sums` (n_rows,) of all logits of a row are finite only if all of
    these are."""

    ids: Places
    logits: Logits
    sums: Logits


class _Result(NamedTuple):
    """The tensor with the found tokens in a graph with `n_rows` of logits."""

    n_rows: int
    tensor: int


class DeviceTopK:
    """Implements `GraphFinder`. Belongs to one context and to the thread that computes with it.

    Answers rows with `k` < `K` of steps that one pass computes. Honours changes that lower logits;
    leaves out rows in which one is raised. Honours masks; a masked row may be unseen in part, and
    rows with short masks are answered with any `k` and changes.
    Declines a step in which a logit is not finite.
    """

    def __init__(
        self, bindings: Bindings, building: ctypes.PyDLL, n_vocab: int, block: int
    ) -> None:
        """Use `of`."""
        lc = self._lc = bindings
        self._read: Callable[..., None] = library_of(lc).ggml_backend_tensor_get
        self._n_rows = 0
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
    def offer(
        cls, bindings: Bindings, n_vocab: int, n_sequences: int, *, whole: bool
    ) -> Self | None:
        """The finder for a context with so many slots, if there can be one and it pays."""
        return cls.of(bindings, n_vocab) if whole and n_sequences >= MIN_ROWS else None

    @classmethod
    def of(cls, bindings: Bindings, n_vocab: int) -> Self | None:
        """None if the library lacks a function, or the vocabulary a divisor."""
        block = block_of(n_vocab, K)
        library = library_of(bindings)
        if block is None or not bind(library, _READING):
            return None
        # a graph takes sixty short calls to build, each of which would have to win the lock back
        building = ctypes.PyDLL(library._name)
        return cls(bindings, building, n_vocab, block) if bind(building, _BUILDING) else None

    def attach(self, params: Parameters) -> None:
        """See `GraphFinder`."""
        params.samplers, params.n_samplers = self._config, 1

    def computed(self, n_rows: int) -> None:
        """See `GraphFinder`."""
        self._n_rows = n_rows

    def find(
        self, logits: Logits, k: Counts, changed: ChangedLogits, masks: RowMasks | None
    ) -> Candidates | None:
        found = self.found()
        return None if found is None else candidates_from_device(logits, found, k, changed, masks)

    def found(self) -> Found | None:
        """The tokens found in the rows that were computed last, in the order of the computation.

        Called after the rows have been computed. None if the graph had too few rows.
        """
        # with fewer outputs than tokens, this graph might not be the one that computed the rows
        n_rows, result = self._n_rows, self._result
        if result is None or result.n_rows != n_rows:
            return None
        found = np.empty((n_rows, 2 * K + 1), np.float32)
        self._read(result.tensor, found.ctypes.data, 0, found.nbytes)
        return Found(found[:, :K].astype(np.int64), found[:, K : 2 * K], found[:, 2 * K])

    def close(self) -> None:
        """See `GraphFinder`."""
        self._result = None
        self._lc.llama_sampler_free(self._chain)

    def _begin(self, _sampler: Any, buffers: int, _n_outputs: int) -> bool:
        """`llama_sampler_i.backend_init`; `buffers` is the kind of buffer that has the logits."""
        self._device = self._building.ggml_backend_buft_get_device(buffers)
        return True

    def _extend(self, _sampler: Any, context: int, graph: int, data: Any) -> None:
        """`llama_sampler_i.backend_apply`: called when a graph is built, with or without logits.

        The first call only counts the nodes for which graphs must have room.
        """
        self._result = None
        data.contents.logits = None  # the given row stays as it is
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
        # unwanted nodes stay in the graph: a graph with fewer nodes would have to be laid out anew
        is_wanted = n_rows >= MIN_ROWS
        ggml.ggml_build_forward_select(graph, (POINTER * 2)(logits, found), 2, int(is_wanted))
        if is_wanted:
            self._result = _Result(n_rows, found)

    def _supports(self, node: int) -> bool:
        """Whether the device computes the node. Otherwise ggml would compute it on the CPU, and
        copy. The host's memory has no device."""
        device = self._device
        return not device or self._building.ggml_backend_dev_supports_op(device, node)

    def _nodes(self, context: int, logits: int, n_rows: int) -> list[int]:
        """New tensors in `context`. The last one has, for each row of `logits`, its K first tokens
        by rising id, their logits, and the sum of all logits: (n_rows, 2 K + 1), float32, which is
        exact for ids below 2^24."""
        made: list[int] = []

        def make(operator: str, *arguments: Any) -> int:
            made.append(getattr(self._building, "ggml_" + operator)(context, *arguments))
            return made[-1]

        def first_of(values: int, width: int) -> int:
            order = make("argsort", values, _DESCENDING)
            return make("view_2d", order, K, n_rows, 4 * width, 0)

        def rows_at(values: int, width: int, places: int) -> int:
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
        largest, ids = rows_at(left, width, places), rows_at(ids, width, places)
        by_id = make("argsort", make("reshape_2d", ids, K, n_rows), _ASCENDING)
        found = make("sum_rows", logits)
        for values in (largest, ids):
            ordered = make("reshape_2d", rows_at(values, K, by_id), K, n_rows)
            found = make("concat", ordered, found, 0)
        return made


def candidates_from_device(
    logits: Logits, found: Found, k: Counts, changed: ChangedLogits, masks: RowMasks | None
) -> Candidates | None:
    """`CandidateFinder.find`, from the tokens that a device has found in these logits.

    Declines if `found` does not fit the logits, some of which are compared. `found` is used up.
    """
    n_vocab = logits.shape[1]
    if not np.isfinite(found.sums).all():
        return None
    some = slice(None, None, _CHECKED)
    checked = found.ids[:, some] + np.arange(0, logits.size, n_vocab)[:, None]
    if (logits.reshape(-1).take(checked, mode="clip") != found.logits[:, some]).any():
        return None
    few = few_candidates(logits, k, changed, masks)
    k = np.where(k < found.ids.shape[1], k, 0)
    if len(changed.places):
        k[changed.places[changed.after > changed.before] // n_vocab] = 0
    if few is not None:
        k[few.rows] = 0
    asked = k.nonzero()[0]
    if not len(asked):
        return few
    ids, values, _ = found
    if len(asked) < len(k):
        ids, values, k = ids[asked], values[asked], k[asked]
    is_changed = len(changed.places) or masks is not None
    least = values.min(axis=1) if is_changed else None
    if len(changed.places):
        places = ids + asked[:, None] * n_vocab
        values = _with(values, places.reshape(-1), changed)
    masks = None if masks is None else masks.among(asked)
    if masks is not None:
        masks.forbid(values, ids)
    partly = None if masks is None else masks.rows
    certain = certain_candidates(ids, values, least, k, partly)
    if certain is not None:
        certain = certain._replace(rows=asked[certain.rows])
    return joined(certain, few)


def _with(values: Logits, places: Places, changed: ChangedLogits) -> Logits:
    """A copy of the logits at rising `places`, with the changed ones among them."""
    at = np.minimum(places.searchsorted(changed.places), len(places) - 1)
    there = (places[at] == changed.places).nonzero()[0]
    values = values.copy()
    values.reshape(-1)[at[there]] = changed.after[there]
    return values


def block_of(n_vocab: int, k: int) -> int | None:
    """The size of blocks with which the fewest logits are sorted; None if no size divides well."""
    sizes = [size for size in range(2, n_vocab // k + 1) if n_vocab % size == 0]
    block = min(sizes, key=lambda size: n_vocab // size + k * size, default=0)
    return block if block and n_vocab // block + k * block <= WIDEST else None
