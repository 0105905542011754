"""Ends an embedder's graph at the vectors of its tokens.

llama.cpp computes the logits of each token with its vector, unasked. Its scheduler asks a callback
for each node of the graph whether the node is wanted, and computes no later node if the callback
says so. The callback needs the interpreter's lock for each node. On a CPU that takes much less than
the logits of a pass do (`embedding/NOTES.md`).
"""

from typing import Any

from engine_worker.backend.llama.bindings import (
    POINTER,
    TEXT,
    Bindings,
    Parameters,
    bind,
    library_of,
)

_VECTORS = b"result_embd_pooled"
"""The name of the tokens' vectors in llama.cpp's graphs for embeddings, also of those that do not
pool. In a graph without a node of that name the logits are computed."""


def end_at_vectors(lc: Bindings, params: Parameters) -> object:
    """Have a context compute no logits. Returns what must live as long as the context."""
    library = library_of(lc)
    if not bind(library, {"ggml_get_name": (TEXT, [POINTER])}):
        return None
    name_of = library.ggml_get_name

    def is_wanted(tensor: int, is_asked: bool, _: Any) -> bool:
        """Whether the node is wanted; once it is computed, whether to compute more."""
        is_last = bool(name_of(tensor) == _VECTORS)
        return is_last == is_asked

    callback = lc.ggml_backend_sched_eval_callback(is_wanted)
    params.cb_eval = callback
    return callback
