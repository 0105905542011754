"""What a GGUF file says of its model.

Owns the reader of the header and the fingerprint of a model. Imports nothing of the worker, and no
binding of llama.cpp: a file is read before anything is loaded.
"""
