"""The number and the layout of KV cells: pure arithmetic.

A cell holds one token's keys and values in every layer. Either all sequences share one cache, or
each has a stream of its own. With streams decoding is faster, but memory is reserved for a whole
context of each sequence. llama.cpp clears its whole KV buffer when it is made, so cells cost time
at every restart as well as memory.
"""

from collections.abc import Sequence

from msgspec import Struct

from gpufc.amount import amount
from gpufc.config import KvUnified
from gpufc.errors import MemoryShort

GRANULE = 256
"""llama.cpp rounds a context up to this many cells."""
CPU_TARGET_BYTES = 512 << 20
CPU_SHARE = 0.4
CPU_HARD_SHARE = 0.9
CPU_STREAMS_BYTES = 2 << 30
CPU_STREAMS_SHARE = 0.25
"""The share of a host's memory for streams that the operator has not asked for. On a host they are
a convenience."""
GPU_SHARE = 0.8


class Store(Struct, frozen=True, kw_only=True):
    """Memory that holds the whole cache, or the layers of it that lie there.

    `cell_bytes` is for each cell, `score_bytes` for each cell that one token may attend to, and
    `states_bytes` for the recurrent states of all sequences. `available_bytes` is the free memory
    after the model is loaded; a share of it is used.
    """

    cell_bytes: int
    score_bytes: int
    states_bytes: int = 0
    available_bytes: int
    on_gpu: bool

    @property
    def limit_bytes(self) -> int:
        """The most that a cache may take here."""
        return int(self.available_bytes * (GPU_SHARE if self.on_gpu else CPU_HARD_SHARE))

    @property
    def streams_limit_bytes(self) -> int:
        """The most that streams may take here when the operator has not asked for them."""
        if self.on_gpu:
            return self.limit_bytes
        return min(CPU_STREAMS_BYTES, int(self.available_bytes * CPU_STREAMS_SHARE))

    def needed_bytes(self, n_cells: int, n_attended: int) -> int:
        """The memory of a cache of `n_cells`, of which a token attends to at most `n_attended`."""
        return self.states_bytes + n_cells * self.cell_bytes + n_attended * self.score_bytes


class Layout(Struct, frozen=True):
    """The decision. `n_cells` are the cells of all sequences together."""

    n_cells: int
    unified: bool


class Wish(Struct, frozen=True, kw_only=True):
    """The demands on the cache: `n_ctx` for one request, `n_running` requests at once, and
    `n_sequences` slots with the idle ones. `unified` and `kv_cells` are the operator's.

    With more than `most_shared` cells in one cache the model would compute other logits: llama.cpp
    chooses LongRoPE's factors by the cells that one sequence may have.
    """

    n_ctx: int
    n_running: int
    n_sequences: int
    unified: KvUnified = KvUnified.AUTO
    kv_cells: int | None = None
    most_shared: int | None = None

    @property
    def stream_cells(self) -> int:
        """The cells of one stream for each sequence."""
        return round_up(self.n_ctx) * self.n_sequences

    @property
    def least_cells(self) -> int:
        """The cells of the smallest cache that suffices."""
        if self.unified is KvUnified.FALSE:
            return self.stream_cells
        return round_up(self.kv_cells or self.n_ctx)

    @property
    def least_attended(self) -> int:
        """The cells of the smallest cache that one token attends to."""
        return round_up(self.n_ctx) if self.unified is KvUnified.FALSE else self.least_cells


def round_up(n_cells: int) -> int:
    """The next multiple of `GRANULE`."""
    return -(-n_cells // GRANULE) * GRANULE


def choose_layout(wish: Wish, stores: Sequence[Store]) -> Layout:
    """One cache or streams, and the number of cells. Every store must hold its part.

    Streams are chosen if they fit and the operator has not chosen otherwise. Raises `MemoryShort`
    if the operator's choice, or else one request's context, does not fit.
    """
    stream = round_up(wish.n_ctx)
    if wish.unified is KvUnified.AUTO and _streams_fit(wish, stores):
        return Layout(wish.stream_cells, unified=False)
    if wish.unified is KvUnified.FALSE:
        require_fit(wish.stream_cells, stream, stores)
        return Layout(wish.stream_cells, unified=False)
    if wish.kv_cells is not None:
        n_cells = round_up(wish.kv_cells)
        require_fit(n_cells, n_cells, stores)
        return Layout(n_cells, unified=True)
    require_fit(wish.n_ctx, wish.n_ctx, stores)
    fitting = min(_fitting(wish, store) for store in stores)
    if wish.most_shared is not None:
        fitting = min(fitting, wish.most_shared)
    return Layout(round_up(max(fitting, wish.n_ctx)), unified=True)


def _streams_fit(wish: Wish, stores: Sequence[Store]) -> bool:
    if wish.kv_cells is not None and wish.stream_cells > wish.kv_cells:
        return False
    return all(
        store.needed_bytes(wish.stream_cells, round_up(wish.n_ctx)) <= store.streams_limit_bytes
        for store in stores
    )


def _fitting(wish: Wish, store: Store) -> int:
    """The cells of one cache: as many as can be used, within this store's share."""
    wanted = wish.n_ctx * wish.n_running
    each = max(1, store.cell_bytes + store.score_bytes)
    if store.on_gpu:
        return min(wanted, (store.limit_bytes - store.states_bytes) // each)
    generous = max(2 * wish.n_ctx, CPU_TARGET_BYTES // max(1, store.cell_bytes))
    room = int(store.available_bytes * CPU_SHARE) - store.states_bytes
    return min(wanted, generous, room // each)


def require_fit(n_cells: int, n_attended: int, stores: Sequence[Store]) -> None:
    """Raises `MemoryShort`, with advice, if a store cannot hold its part of `n_cells`."""
    for store in stores:
        needed, limit = store.needed_bytes(n_cells, n_attended), store.limit_bytes
        if needed <= limit:
            continue
        place, advice = ("host", "n_ctx or kv_cells")
        if store.on_gpu:
            place, advice = ("device", "n_ctx or n_gpu_layers")
        states = f" with {amount(store.states_bytes)} of states" if store.states_bytes else ""
        raise MemoryShort(
            f"a KV cache of {n_cells:,} cells{states} needs {amount(needed)}, and"
            f" {amount(limit)} of {place} memory can be used for it; set a smaller {advice}",
            needed_bytes=needed,
            available_bytes=limit,
            on_device=store.on_gpu,
        )
