"""Who has which cells of the KV cache.

Owns slots, the prefix cache, placeholder rows, and the hand-over of cells between workers. Pure,
except `transfer` and `file`, which move states between processes. Never imports a clock, a thread,
a binding, the scheduler or the engine; the backend's cache is changed through edits alone.
"""
