"""The contents of a GGUF file's header, and the fingerprint of a model.

Never imports another package of the worker, nor a binding of llama.cpp: a file is read before
anything is loaded.
"""
