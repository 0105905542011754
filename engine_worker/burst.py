"""Who of several requests that came together waits for the others' prompts. Pure.

Eight prompts of equal length that arrive at once can be computed one after another, but if those
that are done went on meanwhile, each of their steps would make the last ones wait longer for their
first token, and in turn they would creep along beside the others' prompts. So they *begin
together*: one whose prompt is computed stops before its last token until the others are as far,
and from its first token on its stream runs at full speed. A replay has been seen by somebody
already: it goes on by one token as soon as it can, and waits then.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Items

from engine_worker.sequence import Sequence

LIKE = 4
"""A prompt so many times as long as one's own is not waited for: that would be no gain to anybody
but the one with the long prompt."""


def is_burst(decoding: Items[Sequence], prompts: Items[Sequence]) -> bool:
    """Whether all that `decoding` would compute may wait for `prompts`: nobody's stream runs, and
    each of them has somebody to wait for."""
    return all(seq.n_gained <= 1 and has_mates(seq, prompts) for seq in decoding)


def has_mates(sequence: Sequence, prompts: Iterable[Sequence]) -> bool:
    """Whether one of `prompts` came before this one was ready, and is not much longer."""
    most = LIKE * (len(sequence.tokens) - sequence.n_gained)
    return any(
        (not sequence.ready_at or other.arrived_at < sequence.ready_at)
        and len(other.tokens) <= most
        for other in prompts
    )


def stops_before_its_first_token(sequence: Sequence) -> bool:
    """Not for who wants but one token, and not for a replay, which must compute it as before."""
    return sequence.room > 1 and not sequence.spec.tokens and not sequence.exact
