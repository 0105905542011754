"""One sequence as a function of its tokens.

Owns the text that each token adds to an answer: detokenizing, stop strings and the reason why the
answer ended. Pure: it never imports a clock, a thread, a socket, a backend adapter or a scheduler.
"""
