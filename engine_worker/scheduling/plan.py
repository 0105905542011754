"""One engine step as the scheduler decides it and the engine carries it out.

Each kind of work is a class of its own. A policy may bring a further kind: `Work` is the protocol.
"""

from typing import ClassVar, Protocol, TypeGuard

from msgspec import Struct

from engine_worker.kv.edits import KvEdit
from engine_worker.kv.slots import Slots
from engine_worker.text.sequence import Sequence
from gpufc.ids import RequestNo
from gpufc.protocol import Started


class Work(Protocol):
    """Consecutive tokens of one slot.

    The first is computed at `position`. Logits are computed for the last `n_rows` of `n_tokens`.
    `position` and `tokens` may be asked for until the work is committed.
    """

    @property
    def slot(self) -> int: ...

    @property
    def position(self) -> int: ...

    @property
    def n_tokens(self) -> int: ...

    @property
    def n_rows(self) -> int: ...

    @property
    def next_position(self) -> int | None:
        """The position of the one token that the next step computes of the slot, if that is known
        and no sequence ends: a chosen one at the next position, or the same one in its place."""
        ...

    def tokens(self) -> list[int]:
        """The token ids to compute."""
        ...

    def commit(self, slots: Slots) -> int:
        """Note that the tokens have cells. Returns how many of them had cells once before."""
        ...


class Decode(Struct, frozen=True):
    """The last `n_known` tokens of a sequence, and guesses at the tokens after them.

    More than one known token has come where a guide forces tokens. Only the last has a row.
    """

    sequence: Sequence
    draft: tuple[int, ...] = ()
    n_known: int = 1

    @property
    def slot(self) -> int:
        return self.sequence.slot or 0

    @property
    def position(self) -> int:
        return self.sequence.n_computed

    @property
    def is_one_token(self) -> bool:
        return self.n_known == 1 and not self.draft

    @property
    def n_tokens(self) -> int:
        return self.n_known + len(self.draft)

    @property
    def n_rows(self) -> int:
        return 1 + len(self.draft)

    @property
    def next_position(self) -> int | None:
        return self.position + 1 if self.is_one_token else None

    def tokens(self) -> list[int]:
        return [*self.sequence.tokens[-self.n_known :], *self.draft]

    def commit(self, slots: Slots) -> int:
        """The guesses count only when they are verified: see `Scheduler.verified`."""
        return self.sequence.advance(self.n_known)


class Chunk(Struct, frozen=True):
    """The next `count` known tokens of a sequence, without a draft.

    With `is_last` they reach the last known token, and the sequence gains its next token from the
    row of logits. With `is_padded` a chunk that is not the last has a row as well: the row keeps
    the shape of the pass, and no token is chosen from it. A chunk of a prompt whose log
    probabilities are wanted has a row for each token.
    """

    sequence: Sequence
    count: int
    is_last: bool
    is_padded: bool = False
    draft: ClassVar[tuple[int, ...]] = ()

    @property
    def slot(self) -> int:
        return self.sequence.slot or 0

    @property
    def position(self) -> int:
        return self.sequence.n_computed

    @property
    def n_tokens(self) -> int:
        return self.count

    @property
    def n_rows(self) -> int:
        if self.sequence.scores_prompt:
            return self.count
        return 1 if self.is_last or self.is_padded else 0

    @property
    def next_position(self) -> int | None:
        return None

    def tokens(self) -> list[int]:
        start = self.sequence.n_computed
        return self.sequence.tokens[start : start + self.count]

    def commit(self, slots: Slots) -> int:
        n_recomputed = self.sequence.advance(self.count)
        if self.count > 1 or not self.is_last:
            slots.remember(self.sequence)
        return n_recomputed


class Decoding(Struct, frozen=True):
    """The work of one token a slot: of `n_ready` sequences the next token, and `n_drafted` guesses
    and forced tokens in all; then one token of each sequence that is fed singly; then rows that a
    shape adds."""

    work: list[Work]
    n_ready: int
    n_drafted: int


def chooses(work: Work) -> TypeGuard[Decode | Chunk]:
    """Whether a token is chosen after the work."""
    return isinstance(work, Decode) or (isinstance(work, Chunk) and work.is_last)


class Plan(Struct, frozen=True):
    """One step: first the edits, in their order, then all work in one batch.

    `n_decoding` slots compute one token beside the prompts, and `n_drafted` guesses; `n_prefill`
    tokens are in the other chunks; `n_prompts` prompts and replays were not computed yet before it.
    With `in_one_pass` the last token of every chunk is computed in one pass with the decoding
    slots' tokens, and the rest of the chunks ahead of that.
    """

    edits: list[KvEdit]
    work: list[Work]
    started: list[Started]
    n_decoding: int = 0
    n_drafted: int = 0
    n_prefill: int = 0
    n_prompts: int = 0
    in_one_pass: bool = False

    @property
    def sequences(self) -> list[Sequence]:
        """The sequences that compute tokens in this step."""
        return [work.sequence for work in self.work if isinstance(work, (Decode, Chunk))]

    @property
    def requests(self) -> list[RequestNo]:
        """The numbers of these sequences."""
        return [sequence.request for sequence in self.sequences]

    @property
    def n_tokens(self) -> int:
        return self.n_decoding + self.n_drafted + self.n_prefill

    @property
    def n_rows(self) -> int:
        """Rows of logits."""
        return sum([work.n_rows for work in self.work])

    @property
    def is_prefill(self) -> bool:
        """Whether any sequence computes more than its one next token, and guesses."""
        return self.n_prefill > 0
