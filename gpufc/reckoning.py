"""What a model will take, reckoned from its file's header: the answer of `engine_worker.reckon`."""

from typing import Annotated

from msgspec import Meta, Struct

from gpufc.config import ModelConfig
from gpufc.facts import MAX_SEQUENCES


class Question(Struct, frozen=True, kw_only=True):
    """A model that may run `n_running` sequences at once, with the memory that it may take on the
    host and on each GPU that it is spread over."""

    config: ModelConfig
    n_running: Annotated[int, Meta(ge=1, le=MAX_SEQUENCES)]
    host_bytes: int
    device_bytes: tuple[int, ...] = ()


class Reckoning(Struct, frozen=True, kw_only=True):
    """The placement that a worker would choose, and its memory. All amounts are estimates.

    `host_bytes` are the process's own, `mapped_bytes` of the mapped file. The `least_…` amounts are
    with the smallest cache that suffices for one request. With an `error` the model cannot be
    loaded, for this reason: its file is broken, or it does not fit.
    """

    error: str = ""
    lacks_memory: bool = False
    architecture: str = ""
    n_ctx: int = 0
    n_layers: int = 0
    n_gpu_layers: int = 0
    n_cells: int = 0
    host_bytes: int = 0
    mapped_bytes: int = 0
    device_bytes: int = 0
    least_host_bytes: int = 0
    least_device_bytes: int = 0
