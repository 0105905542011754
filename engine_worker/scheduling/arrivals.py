"""Who of several requests that came together waits for the others' prompts. Pure.

Eight prompts of equal length that arrive at once can be computed one after another, but if those
that are done went on meanwhile, each of their steps would make the last ones wait longer for their
first token, and in turn they would creep along beside the others' prompts. So they *begin
together*: one whose prompt is computed stops before its last token until the others are as far,
and from its first token on its stream runs at full speed. A replay has been seen by somebody
already: it goes on by one token as soon as it can, and waits for other replays then.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Items

from engine_worker.text.sequence import Sequence

LIKE = 2
"""A prompt so many times as long as one's own is not waited for: that would be no gain to anybody
but the one with the long prompt."""


def is_burst(ready: Items[Sequence], prompts: Items[Sequence]) -> bool:
    """Whether all that are `ready` to go on may wait for `prompts`: nobody's stream runs, and each
    of them has somebody to wait for."""
    return all(
        seq.n_gained <= (1 if seq.spec.tokens else 0) and has_mates(seq, prompts) for seq in ready
    )


def has_mates(sequence: Sequence, prompts: Iterable[Sequence]) -> bool:
    """Whether one of `prompts` came before this one was ready, and is not much longer."""
    most = LIKE * (len(sequence.tokens) - sequence.n_gained)
    return any(
        (not sequence.ready_at or other.arrived_at < sequence.ready_at)
        and len(other.tokens) <= most
        and (other.is_replay or not sequence.spec.tokens)
        and not is_fed_singly(other)
        for other in prompts
    )


def stops_before_its_first_token(sequence: Sequence) -> bool:
    """Not for who wants but one token, nor for who has had some, here or elsewhere; and not where
    the last token's kernels must be those of the others."""
    return sequence.room > 1 and not sequence.n_generated and not sequence.exact


def is_fed_singly(sequence: Sequence) -> bool:
    """An exact replay feeds its generated tokens one a step, beside which others go on for free."""
    return sequence.exact and sequence.n_computed >= sequence.n_prompt and sequence.n_pending > 1
