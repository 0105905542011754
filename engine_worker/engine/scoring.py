"""Log probabilities of the tokens of a step, for the sequences whose requests want them.

Called between the choice of the tokens and the next pass, while the rows of logits are valid.
"""

from engine_worker.backend.port import Backend, Logits
from engine_worker.sampling import logprobs
from engine_worker.sampling.batch import Pick
from engine_worker.sampling.logprobs import RowLogprobs
from engine_worker.scheduling.plan import Chunk
from engine_worker.text.logprobs import Scored
from gpufc.protocol import Logprob, LogprobsWanted

MAX_PROMPT_ROWS = 32
"""Rows of logits of one step for the tokens of a prompt. They are spare ones, which drafts use
otherwise."""


class Scorer:
    """Owned by the engine thread."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def generated(self, wanted: LogprobsWanted, row: Logits, pick: Pick, token: int) -> Scored:
        """Those of a token that `pick` has chosen from a row."""
        if wanted.after_sampling:
            found = logprobs.after_sampling(row, pick, token, wanted.n_top)
        else:
            found = logprobs.of_model(row, token, wanted.n_top)
        return self._written(token, found)

    def prompt(self, wanted: LogprobsWanted, chunk: Chunk, rows: Logits) -> list[Scored]:
        """Those of a prompt's tokens that a committed chunk gives rows for: of each token after
        one in the chunk, and of the prompt's first token."""
        sequence = chunk.sequence
        end = sequence.n_computed
        start = end - chunk.count
        tokens = sequence.tokens[start + 1 : min(end + 1, sequence.n_prompt)]
        first = [self._first(sequence.tokens[0])] if start == 0 else []
        of_rows = zip(tokens, rows, strict=False)
        return first + [
            self._written(token, logprobs.of_model(row, token, wanted.n_top))
            for token, row in of_rows
        ]

    def _first(self, token: int) -> Scored:
        return Logprob(token, self._piece(token), None), ()

    def _written(self, token: int, found: RowLogprobs) -> Scored:
        piece = self._piece
        pairs = zip(found.ids, found.logprobs, strict=True)
        top = tuple(Logprob(other, piece(other), logprob) for other, logprob in pairs)
        return Logprob(token, piece(token), found.of_token), top

    def _piece(self, token: int) -> bytes:
        return self._backend.piece(token) or self._backend.spelling(token)
