"""The computation of logits: the port, and its two adapters.

The rest of the worker knows only `port` and `candidates`: tokens, positions, slots, logits. `llama`
adapts llama.cpp, `fake` is a scripted backend without a model. Never imports the engine, the
scheduler, sampling or the KV cache's bookkeeping.
"""
