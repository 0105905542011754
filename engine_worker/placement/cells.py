"""How many KV cells there should be, and how they are laid out: pure arithmetic.

A cell holds one token's keys and values in every layer. One cache is shared by all sequences, or
each has a stream of its own: decoding is faster then, and memory is reserved for as many whole
contexts as there are sequences. llama.cpp clears its whole KV buffer when it is made, so cells
cost time at every restart as well as memory.
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
"""What streams may take of a host by themselves: they are a convenience there, not a need."""
GPU_SHARE = 0.8


class Store(Struct, frozen=True, kw_only=True):
    """Memory that holds the whole cache, or the layers of it that lie there.

    `cell_bytes` is for each cell, `score_bytes` for each cell that one token may attend to. Of the
    `available_bytes` a share is used, the model already loaded.
    """

    cell_bytes: int
    score_bytes: int
    available_bytes: int
    on_gpu: bool

    @property
    def limit_bytes(self) -> int:
        """The most that a cache may take here."""
        return int(self.available_bytes * (GPU_SHARE if self.on_gpu else CPU_HARD_SHARE))

    @property
    def streams_limit_bytes(self) -> int:
        """The most that streams may take here when nobody has asked for them."""
        if self.on_gpu:
            return self.limit_bytes
        return min(CPU_STREAMS_BYTES, int(self.available_bytes * CPU_STREAMS_SHARE))

    def needed_bytes(self, n_cells: int, n_attended: int) -> int:
        """For a cache of so many cells, of which a token attends to at most `n_attended`."""
        return n_cells * self.cell_bytes + n_attended * self.score_bytes


class Layout(Struct, frozen=True):
    """The decision. `n_cells` are those of all sequences together."""

    n_cells: int
    unified: bool


class Wish(Struct, frozen=True, kw_only=True):
    """What is asked of the cache: `n_ctx` for one request, of which `n_running` run at once, in
    `n_sequences` with the idle ones; and what the operator has said."""

    n_ctx: int
    n_running: int
    n_sequences: int
    unified: KvUnified = KvUnified.AUTO
    kv_cells: int | None = None

    @property
    def stream_cells(self) -> int:
        """Cells of a stream each."""
        return round_up(self.n_ctx) * self.n_sequences

    @property
    def least_cells(self) -> int:
        """The smallest cache that will do."""
        if self.unified is KvUnified.FALSE:
            return self.stream_cells
        return round_up(self.kv_cells or self.n_ctx)

    @property
    def least_attended(self) -> int:
        """Of those, what a token attends to."""
        return round_up(self.n_ctx) if self.unified is KvUnified.FALSE else self.least_cells


def round_up(n_cells: int) -> int:
    """The next multiple of `GRANULE`."""
    return -(-n_cells // GRANULE) * GRANULE


def choose_layout(wish: Wish, stores: Sequence[Store]) -> Layout:
    """One cache or a stream each, and of how many cells. Every store must hold its part.

    Streams, where they fit and nobody has said otherwise. Raises `MemoryShort` when what is asked
    for, or else one request's context, does not fit.
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
    return Layout(round_up(max(fitting, wish.n_ctx)), unified=True)


def _streams_fit(wish: Wish, stores: Sequence[Store]) -> bool:
    if wish.kv_cells is not None and wish.stream_cells > wish.kv_cells:
        return False
    return all(
        store.needed_bytes(wish.stream_cells, round_up(wish.n_ctx)) <= store.streams_limit_bytes
        for store in stores
    )


def _fitting(wish: Wish, store: Store) -> int:
    """Cells of one cache: as many as could be used, within this store's share."""
    wanted = wish.n_ctx * wish.n_running
    each = max(1, store.cell_bytes + store.score_bytes)
    if store.on_gpu:
        return min(wanted, store.limit_bytes // each)
    generous = max(2 * wish.n_ctx, CPU_TARGET_BYTES // max(1, store.cell_bytes))
    return min(wanted, generous, int(store.available_bytes * CPU_SHARE) // each)


def require_fit(n_cells: int, n_attended: int, stores: Sequence[Store]) -> None:
    """Raises `MemoryShort`, with what to set, where a store cannot hold its part of `n_cells`."""
    for store in stores:
        needed, limit = store.needed_bytes(n_cells, n_attended), store.limit_bytes
        if needed <= limit:
            continue
        place, advice = ("host", "n_ctx or kv_cells")
        if store.on_gpu:
            place, advice = ("device", "n_ctx or n_gpu_layers")
        raise MemoryShort(
            f"a KV cache of {n_cells:,} cells needs {amount(needed)}, and {amount(limit)} of"
            f" {place} memory can be used for it; set a smaller {advice}",
            needed_bytes=needed,
            available_bytes=limit,
            on_device=store.on_gpu,
        )
