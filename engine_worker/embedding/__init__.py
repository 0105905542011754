"""Embeddings beside generation: what waits, what a pass computes, and how much of a step it takes.

Pure. Owns the inputs from their tokens to their vectors. The engine carries its passes out on a
backend's `Embedder`.
"""
