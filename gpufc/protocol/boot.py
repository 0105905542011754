"""The boot message, which does not go over the link."""

from typing import Annotated

from msgspec import Meta, Struct

from gpufc.config import ModelConfig
from gpufc.ids import Epoch, WorkerName


class Boot(Struct, frozen=True):
    """The first message to a worker, over its boot pipe (`gpufc/wire.py` frames it).

    The pipe stays open for the front's lifetime: its end of file means that the front is gone. A
    spare is a worker that has not received its boot message yet.
    """

    epoch: Epoch
    worker: WorkerName
    endpoint: str
    token: str
    model: ModelConfig
    n_sequences: Annotated[int, Meta(ge=1, le=256)]
    log_level: str = "info"
    log_format: str = "plain"
    within: tuple[str, ...] = ()
    """The folders and files that the model's files must lie in, by real paths; empty for any."""
    device_limit_bytes: int | None = None
    """The memory of each GPU that the worker may take, with its draft model; None for what is
    free."""
    is_awaited: bool = False
    """Requests wait for the worker: a part of its load that not all of them need comes later."""

    def __repr__(self) -> str:
        """Without the token, for logs and tracebacks."""
        return f"Boot(epoch={self.epoch}, worker={self.worker!r}, endpoint={self.endpoint!r})"
