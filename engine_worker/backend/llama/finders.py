"""The finders of candidates that this backend offers. An entry here is all that names one.

A finder in the graph adds nodes to the context's graphs, so that the device looks for candidates
where it computes the logits. A finder on the host reads the logits. How to add one: a class that
implements `GraphFinder` or `HostFinder`, and an entry in one of the two functions, in the order in
which finders are asked.
"""

import ctypes
from typing import Protocol

from engine_worker.backend.candidates import CandidateFinder
from engine_worker.backend.llama.bindings import Bindings, Parameters
from engine_worker.backend.llama.device_top_k import DeviceTopK
from engine_worker.backend.llama.host_top_k import HostTopK


class HostFinder(CandidateFinder, Protocol):
    """A finder on the host."""

    def close(self) -> None:
        """Free its memory. It is not used afterwards."""
        ...


class GraphFinder(CandidateFinder, Protocol):
    """A finder in the graph. It belongs to one context."""

    def attach(self, params: Parameters) -> None:
        """Enter itself in the `llama_context_params` that the context is made with."""
        ...

    def computed(self, n_rows: int) -> None:
        """A batch was begun. `n_rows` is its number of logits rows if one pass computes all of them
        and computes nothing else, otherwise 0."""
        ...

    def close(self) -> None:
        """Free its memory. Called after the context is freed, or was not made."""
        ...


def graph_finders(
    bindings: Bindings, n_vocab: int, n_sequences: int, *, whole: bool
) -> tuple[GraphFinder, ...]:
    """The finders for a context with so many slots. `whole`: all layers are on devices."""
    offered = (DeviceTopK.offer(bindings, n_vocab, n_sequences, whole=whole),)
    return tuple(one for one in offered if one is not None)


def host_finders(library: ctypes.CDLL, n_vocab: int, n_threads: int) -> tuple[HostFinder, ...]:
    """The finders that pay with so many threads."""
    offered = (HostTopK.offer(library, n_vocab, n_threads),)
    return tuple(one for one in offered if one is not None)
