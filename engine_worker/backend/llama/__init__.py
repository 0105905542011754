"""The adapter for llama.cpp.

Owns the low-level bindings, loading and placing a model, its log, and the finders of candidates on
the host and on a device. `backend` is the only module that imports `llama_cpp`, and the only one
that the worker imports.
"""
