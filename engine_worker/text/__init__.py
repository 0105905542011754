"""One sequence as a function of its tokens.

Owns what a token adds to an answer's text: detokenizing, stop strings, ends. Pure: never imports a
clock, a thread, a socket, an adapter of the backend, or anything that schedules sequences.
"""
