"""When two answers of the real model may be compared.

llama.cpp rounds packed weights otherwise for one token than for several. A pass has another size
after a kill, beside another request, or with drafts, whose number depends on measured times. So an
answer is the same again only in one of two cases: every pass has the same size (`SAME_PASSES`, no
cache, no other request), or each token leads the second-best one clearly (`require_same`).
"""

from typing import Protocol

SAME_PASSES = {"GPUFC_SPECULATION": "none", "GPUFC_N_THREADS": "1"}
"""The environment of a service whose passes for one request alone do not depend on time. Two engine
threads would wait for each other at every step, which takes long on a busy machine."""

COUNTING = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17,"
"""The demo model continues this prompt with tokens that lead clearly."""

CLEAR = 1.0
"""No rounding reverses such a lead of the best token's log probability over the second one's. The
tests of log probabilities allow 0.25 between passes of different sizes."""


class Logprobs(Protocol):
    """`openai.types.completion_choice.Logprobs` of a request with `logprobs` of at least 2."""

    tokens: list[str] | None
    top_logprobs: list[dict[str, float]] | None


def n_clear(logprobs: Logprobs) -> int:
    """The number of tokens before the first one without a clear lead."""
    for at, top in enumerate(logprobs.top_logprobs or []):
        best, second = sorted(top.values(), reverse=True)[:2]
        if best - second < CLEAR:
            return at
    return len(logprobs.top_logprobs or [])


def require_same(tokens: list[str], whole: Logprobs | None, *, least: int) -> None:
    """The greedy tokens are those of `whole`, up to its first one without a clear lead. At least so
    many have to be clear."""
    assert whole is not None
    n_compared = n_clear(whole)
    assert n_compared >= least, "the prompt's answer is too uncertain to compare"
    assert tokens[:n_compared] == (whole.tokens or [])[:n_compared]
