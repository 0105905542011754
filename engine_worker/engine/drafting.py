"""When the speculator is asked for drafts, and for which sequences."""

from engine_worker.engine.reporter import Reporter
from engine_worker.scheduling.scheduler import Scheduler
from engine_worker.speculation.drafter import DraftRequest
from engine_worker.speculation.speculator import Speculator
from engine_worker.text.sequence import Sequence
from gpufc.errors import DecodeFailed


class Drafting:
    """Asks once in each step: before the step if drafts are verified in it, and while the device
    computes the step if the speculator is quiet.

    Either raises `DecodeFailed`, which is reported, when a draft model is lost.
    """

    def __init__(
        self,
        speculator: Speculator,
        scheduler: Scheduler,
        reporter: Reporter,
        *,
        n_ctx: int,
        n_spare_outputs: int,
        max_prompt_rows: int = 0,
    ) -> None:
        """`n_spare_outputs` rows of logits are left when every sequence has one. Up to
        `max_prompt_rows` of them are a prompt's where a sequence wants its log probabilities."""
        self._speculator = speculator
        self._scheduler = scheduler
        self._reporter = reporter
        self._n_ctx = n_ctx
        self._n_spare_outputs = n_spare_outputs
        self._max_prompt_rows = max_prompt_rows
        self._is_quiet = True

    @property
    def is_quiet(self) -> bool:
        """Whether the next step has no drafts."""
        return self._speculator.is_quiet

    def before_step(self) -> None:
        """Give the sequences of the next step their drafts."""
        self._is_quiet = self._speculator.is_quiet
        if self._is_quiet:
            return
        scheduler = self._scheduler
        for sequence in scheduler.running:
            sequence.draft = []  # left over where the sequence has waited
        left = self._room(scheduler.running)
        for sequence, draft in self._drafts():
            sequence.draft = draft[:left]
            left -= len(sequence.draft)

    def beside_step(self) -> None:
        """Let a quiet speculator compare the tokens that came with its guesses."""
        if self._is_quiet:
            self._drafts()

    def forget(self, sequence: Sequence) -> None:
        """A sequence has ended."""
        self._speculator.forget(sequence.request)

    def _drafts(self) -> list[tuple[Sequence, list[int]]]:
        """Drafts for the sequences that decode and may draft."""
        most = self._speculator.max_sequences
        if not most:
            return []
        decoding = self._scheduler.decoding()
        if len(decoding) > most:
            self._speculator.pause()
            return []
        left = self._room(decoding)
        asked = [seq for seq in decoding if seq.may_draft]
        requests = [self._request(seq, left) for seq in asked]
        try:
            drafts = self._speculator.draft_all(requests, n_decoding=len(decoding))
        except DecodeFailed as err:
            self._reporter.failed((seq.request for seq in asked), err)
            raise
        return list(zip(asked, drafts, strict=True))

    def _room(self, sequences: list[Sequence]) -> int:
        n_known = len(sequences) + sum([seq.n_jumped for seq in sequences])
        n_rows = self._n_spare_outputs
        if self._scheduler.scores_prompts:
            n_rows -= self._max_prompt_rows
        return max(0, min(n_rows, self._scheduler.batch_tokens - n_known))

    def _request(self, sequence: Sequence, left: int) -> DraftRequest:
        in_context = self._n_ctx - len(sequence.tokens) - 1
        return DraftRequest(
            sequence.request,
            sequence.tokens,
            min(in_context, left),
            sequence.room - 1,
            sequence.spec.prediction,
            sequence.n_prompt,
        )
