"""Which tokens the next step computes.

Owns waiting and running sequences, the shape of steps, pauses of sequences, the prefill budget, and
the costs of steps. Pure: never imports a clock, a thread, a socket, an adapter of the backend or
the engine. Its input is calls, its output is a `Plan`. `policies` is the place to start reading.
"""
