"""What one engine step computes: what the scheduler decides and the engine carries out."""

from msgspec import Struct

from engine_worker.kv.edits import CellPosition, KvEdit
from engine_worker.text.sequence import Sequence
from gpufc.protocol import Started


class Work(Struct, frozen=True):
    """Compute `count` pending tokens of a sequence, and after them its `draft`.

    With `output`, `count` reaches the last known token: logits are wanted for that and for each
    drafted one. With `padding` they are computed for the last of the `count` tokens although nobody
    chooses from them, so that the pass has the same shape as the others. A sequence that has ended
    and lingers has no slot any more; `lingers` says where its token is computed.
    """

    sequence: Sequence
    count: int
    output: bool
    draft: tuple[int, ...] = ()
    padding: bool = False
    lingers: CellPosition | None = None

    @property
    def start(self) -> CellPosition:
        """Where its first token is computed."""
        return self.lingers or CellPosition(self.sequence.slot or 0, self.sequence.n_computed)

    @property
    def n_rows(self) -> int:
        """Rows of logits."""
        return 1 + len(self.draft) if self.output else int(self.padding)

    @property
    def n_left(self) -> int:
        """Known tokens that it leaves to be computed."""
        return self.sequence.n_pending - self.count


class Plan(Struct, frozen=True):
    """One step: first the edits, in their order, then all work in one batch.

    `n_decoding` sequences compute one token, their next one or one more of a prompt that is fed
    token by token, or linger, and `n_drafted` guesses beside it; `n_prefill` tokens are of other
    prompts and replays, of which `n_prompts` are not computed yet. With `in_one_pass` the last
    token of every prompt's chunk is computed beside the decoding sequences' one token, and the rest
    ahead of that.
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
        """Whose step it is."""
        return [work.sequence for work in self.work if work.lingers is None]

    @property
    def n_tokens(self) -> int:
        return self.n_decoding + self.n_drafted + self.n_prefill

    @property
    def is_prefill(self) -> bool:
        """Whether any sequence computes more than its one next token, and guesses."""
        return self.n_prefill > 0
