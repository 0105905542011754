"""Which tokens the next step computes.

Owns waiting and running sequences, the prefill budget, and the costs of steps that are learnt from
the steps that there are. Pure: never imports a clock, a thread, a socket, an adapter of the backend
or the engine; its input is calls, its output is a `Plan`.
"""
