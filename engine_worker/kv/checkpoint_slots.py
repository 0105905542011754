"""Slots of a model whose state cannot be cut: recurrent and hybrid ones. Pure.

A prefix of such a model is reused whole or not at all. So copies of the state, *checkpoints*, are
kept in slots of their own, as idle prefixes among the others: where the first long message ends,
which is the system message as a rule; where a prompt parts from another one; and at the end of the
prompt. The scheduler ends a chunk at each of these positions. llama.cpp copies a state where it
lies, when one of the two slots computes again; a context has one state for each slot in any case.
"""

from collections.abc import Callable, Sequence

from engine_worker.kv.edits import Copy
from engine_worker.kv.prefix_cache import Match, PrefixCache
from engine_worker.kv.slots import Slots
from engine_worker.text import sequence as text

LEAST_TOKENS = 32
"""A checkpoint costs a copy of the state and one more chunk. A shorter prefix is computed again."""

LEAST_SHARE = 16
"""Of two checkpoints closer to each other than a sixteenth of the prefix, one is kept."""

GENERATION_PROMPT = 16
"""The most tokens behind the last message that make the model answer."""

IsControl = Callable[[int], bool]
"""Whether a token is a control token, such as the beginning or the end of a message."""


def end_of_first_message(tokens: Sequence[int], is_control: IsControl) -> int | None:
    """The end of the first run of `LEAST_TOKENS` tokens between two control tokens, if any."""
    begin = 0
    for at, token in enumerate(tokens):
        if is_control(token):
            if at - begin >= LEAST_TOKENS:
                return at
            begin = at + 1
    return None


def end_of_prompt(tokens: Sequence[int], is_control: IsControl) -> int:
    """The beginning of the generation prompt, which a later turn may not repeat; without control
    tokens the last token, since its logits are wanted."""
    last = len(tokens) - 1
    begins = range(last, max(0, last - GENERATION_PROMPT), -1)
    return next((at for at in begins if is_control(tokens[at])), last)


class CheckpointSlots(Slots):
    """See `Slots`. Invariant: a checkpoint is an idle holding, and gives way like any other."""

    def __init__(
        self, n_slots: int, *, max_idle: int, cache: PrefixCache, is_control: IsControl
    ) -> None:
        super().__init__(n_slots, max_idle=max_idle, cache=cache)
        self._is_control = is_control

    def remember(self, sequence: text.Sequence) -> None:
        super().remember(sequence)
        if sequence.slot is not None and sequence.n_computed in sequence.checkpoints:
            self._keep(sequence, sequence.slot)

    def _place(self, sequence: text.Sequence, match: Match | None) -> None:
        positions = self._positions(sequence)
        self._cache.refresh(sequence.spec.scope, sequence.tokens, positions)
        sequence.checkpoints = positions
        super()._place(sequence, match)
        sequence.checkpoints = tuple(at for at in positions if at > sequence.n_computed)

    def _continues(self, match: Match, sequence: text.Sequence) -> bool:
        """Not from a checkpoint that this sequence or another one begins with: it is copied, and
        stays for the next sequence."""
        is_checkpoint = match.n_tokens in sequence.checkpoints or self._cache.goes_on(match.slot)
        return not is_checkpoint and super()._continues(match, sequence)

    def _positions(self, sequence: text.Sequence) -> tuple[int, ...]:
        """The checkpoints of a sequence, in order."""
        if not sequence.reuses_prefix or not self._max_idle:
            return ()
        prompt = sequence.tokens[: sequence.n_prompt]
        end = end_of_prompt(prompt, self._is_control)
        first = end_of_first_message(prompt[:end], self._is_control)
        parting = self._cache.parting(sequence.spec.scope, prompt)
        positions: list[int] = []
        for at in (first, parting, end):
            if at is not None and LEAST_TOKENS <= at <= end and _is_apart(at, positions):
                positions.append(at)
        return tuple(sorted(positions))

    def _keep(self, sequence: text.Sequence, slot: int) -> None:
        """Copy the state of a running sequence to a slot of its own."""
        scope, tokens = sequence.spec.scope, sequence.tokens[: sequence.n_computed]
        if self._cache.refresh(scope, tokens, [len(tokens)]):
            return
        if len(self._cache.idle_slots()) >= self._max_idle or not self._free:
            self._give_up_idle()
        if not self._free:
            return
        target = max(self._free)
        self._edits.append(Copy(slot, target, len(tokens)))
        self._take_free(target)
        self._cache.hold(target, scope, tokens)
        self._cache.release(target)


def _is_apart(position: int, others: Sequence[int]) -> bool:
    return all(abs(position - other) * LEAST_SHARE >= max(position, other) for other in others)
