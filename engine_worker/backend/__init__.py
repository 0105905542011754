"""What computes logits: the port, and its two adapters.

`port` is all that the rest of the worker knows: tokens, positions, slots, logits. `llama` adapts
llama.cpp, `fake` is a scripted engine without a model. Nothing in here imports the engine, the
scheduler, sampling or the KV cache's bookkeeping.
"""
