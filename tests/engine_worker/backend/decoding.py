"""A batch computed and waited for."""

from engine_worker.backend.port import Backend, Batch, Logits


def decode(backend: Backend, batch: Batch) -> Logits:
    """The logits of the batch's marked tokens."""
    backend.begin(batch)
    return backend.logits()
