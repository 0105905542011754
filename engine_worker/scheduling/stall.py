"""How long a step beside streams may take. Pure.

A step with a part of a prompt, or with one stream's draft, takes longer, and all streams of the
step wait for it.
"""

STALL = 2.4
"""Such a step to one without. Running streams' tokens come that much later."""

UNNOTICED_S = 0.04
"""A step may always take so much longer: people do not read that fast. Where plain steps take a few
milliseconds, prompts would wait for nothing otherwise."""


def longest_s(plain_s: float) -> float:
    """The most seconds, where a step of the same streams alone takes `plain_s`."""
    return max(STALL * plain_s, plain_s + UNNOTICED_S)
