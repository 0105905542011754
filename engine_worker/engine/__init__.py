"""The engine thread: take requests, plan, begin, report, choose, accept; again.

Owns the loop that carries out the scheduler's plans on a backend, the translation of a plan into a
batch, and what is built once a model is loaded. Decides nothing: that is `scheduling`'s,
`speculation`'s and `sampling`'s. Never imports a socket, the channel, or a binding of llama.cpp.
"""
