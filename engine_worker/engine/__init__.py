"""The engine thread: take requests, draft, plan, begin, report, choose, accept; again.

Owns the loop that carries out the scheduler's plans on a backend, the translation of plans into
batches, the order of messages, and the loading of models. Decides nothing: that is the business of
`scheduling`, `speculation` and `sampling`. Never imports a socket, the channel, or a binding of
llama.cpp.
"""
