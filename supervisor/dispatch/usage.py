"""How much a model is used now: what decides whether it stays in memory."""

from collections.abc import Mapping

from msgspec import Struct

from gpufc.ids import Epoch


class Usage(Struct, frozen=True):
    """One model's requests.

    `n_waiting` counts sequences and questions that no worker has. `open_by` has the number of
    sequences, questions and embeddings of each ready worker. `has_worker`: some worker takes new
    sequences, so that those that wait only wait for room.
    """

    n_waiting: int = 0
    open_by: Mapping[Epoch, int] = {}
    has_worker: bool = False
