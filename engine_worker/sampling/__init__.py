"""Which token follows, given a row of logits.

Owns the sampling chain, penalties and biases, the search for candidates, and the random number of
a position. Pure, except `batch`, which computes rows in threads. Never imports the engine, the
scheduler, a clock or a binding of llama.cpp; it finds large logits through the backend's port.
"""
