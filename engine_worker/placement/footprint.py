"""The memory of a model, layer by layer: arithmetic on its header.

The last layers go to a GPU, together with the output layer; the input embeddings stay on the host.
llama.cpp's `llama_model::load_tensors` does it so.
"""

from msgspec import Struct

from engine_worker.model_file.gguf_header import GgufHeader
from engine_worker.placement.cell_sizes import cell_bytes
from engine_worker.placement.states import state_bytes
from gpufc.config import KvType

MAX_LAYERS = 65_536


class Footprint(Struct, frozen=True, kw_only=True):
    """Bytes by layer, the layer nearest to the input first.

    `cell_bytes` are of one token's keys and values, with those of an indexer. `state_bytes` are of
    one sequence, however long it is: a recurrent state, or that of compressed keys. `n_heads` is
    the largest number of query heads of a layer.
    """

    layer_bytes: tuple[int, ...]
    output_bytes: int
    cell_bytes: tuple[int, ...]
    state_bytes: tuple[int, ...]
    n_heads: int

    @property
    def n_layers(self) -> int:
        return len(self.layer_bytes)

    @property
    def bytes_per_cell(self) -> int:
        """The bytes of one cell in all layers; at least 1."""
        return max(1, sum(self.cell_bytes))

    @property
    def has_cells(self) -> bool:
        """Whether any layer keeps keys and values of each token."""
        return any(self.cell_bytes)

    def device_bytes(self, n_layers: int) -> int:
        """The weights on GPUs with `n_layers` there."""
        if not n_layers:
            return 0
        return self.output_bytes + sum(self.layer_bytes[-n_layers:])

    def device_cell_bytes(self, n_layers: int) -> int:
        """The part of one cell on GPUs with `n_layers` there."""
        return sum(self.cell_bytes[-n_layers:]) if n_layers else 0

    def device_state_bytes(self, n_layers: int) -> int:
        """The part of one sequence's state on GPUs with `n_layers` there."""
        return sum(self.state_bytes[-n_layers:]) if n_layers else 0

    def score_bytes(self, batch_tokens: int, *, flash: bool) -> int:
        """The compute buffer for each cell that a token attends to, in a pass of `batch_tokens`.

        With flash attention it holds a mask of two bytes. Without, it holds a mask of four bytes
        and, for each head, a score and on a GPU the score's copy in half precision. Measured:
        llama.cpp's reserved buffers.
        """
        return batch_tokens * (2 if flash else 4 + 6 * self.n_heads)


def footprint(
    header: GgufHeader,
    type_k: KvType = KvType.F16,
    type_v: KvType = KvType.F16,
    *,
    flash: bool = True,
) -> Footprint:
    """The footprint of a model with keys and values of these types. Without `flash` attention
    llama.cpp keeps values transposed, and pads them where layers have different numbers of them."""
    arch = header.architecture
    n_layers = min(header.number(f"{arch}.block_count"), MAX_LAYERS)
    # a recurrent model has no head count, or 0
    n_heads = max(header.per_layer(f"{arch}.attention.head_count", n_layers, 0), default=0)
    kv_heads = header.per_layer(f"{arch}.attention.head_count_kv", n_layers, n_heads)
    sizes = header.tensor_bytes
    return Footprint(
        layer_bytes=tuple(sizes.get(f"blk.{layer}", 0) for layer in range(n_layers)),
        # without an output tensor the embeddings are the output too, and a GPU gets a copy
        output_bytes=sizes.get("output_norm", 0) + sizes.get("output", sizes.get("token_embd", 0)),
        cell_bytes=cell_bytes(header, kv_heads[:n_layers], type_k, type_v, padded=not flash),
        state_bytes=state_bytes(header, n_layers, type_k),
        n_heads=n_heads,
    )
