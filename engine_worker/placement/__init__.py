"""Where a model and its KV cache go: arithmetic on a header and on free memory.

Owns the number of layers on GPUs, the number and layout of KV cells, and the memory of both. Pure:
imports `model_file`, and never a clock, thread, socket or binding.
"""
