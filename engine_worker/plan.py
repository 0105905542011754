"""What one engine step computes: what the scheduler decides and the engine carries out."""

from msgspec import Struct

from engine_worker.kv_edit import KvEdit
from engine_worker.sequence import Sequence
from gpufc.protocol import Started


class Work(Struct, frozen=True):
    """Compute `count` pending tokens of a sequence, and after them its `draft`.

    With `output`, `count` reaches the last known token: logits are wanted for that and for each
    drafted one.
    """

    sequence: Sequence
    count: int
    output: bool
    draft: tuple[int, ...] = ()

    @property
    def n_outputs(self) -> int:
        return 1 + len(self.draft) if self.output else 0

    @property
    def n_left(self) -> int:
        """Known tokens that it leaves to be computed."""
        return self.sequence.n_pending - self.count


class Plan(Struct, frozen=True):
    """One step: first the edits, in their order, then all work in one batch.

    `n_decoding` sequences compute one token, their next one or one more of a prompt that is fed
    token by token, and `n_drafted` guesses beside it; `n_prefill` tokens are of other prompts and
    replays, of which `n_prompts` are not computed yet.
    """

    edits: list[KvEdit]
    work: list[Work]
    started: list[Started]
    n_decoding: int = 0
    n_drafted: int = 0
    n_prefill: int = 0
    n_prompts: int = 0

    @property
    def n_tokens(self) -> int:
        return self.n_decoding + self.n_drafted + self.n_prefill

    @property
    def is_prefill(self) -> bool:
        """Whether any sequence computes more than its one next token, and guesses."""
        return self.n_prefill > 0
