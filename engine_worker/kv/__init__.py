"""The book-keeping of the KV cache: which slot has cells for which tokens.

Owns slots, the prefix cache, and the hand-over of cells between workers. Slots
and prefixes change the backend's cache through `edits` only. The package is pure, except for
`transfer` and `file`, which move states between processes. It never imports a thread, a binding,
the scheduler or the engine.
"""
