"""The truth about one sequence: what was asked and every token that any worker produced for it.

Pure. Whoever brings a token to a client reads it from here, so that nothing can be sent that was
not logged first. Nothing but the log is needed to go on with a sequence on another worker.
"""

from array import array
from typing import Self

from gpufc.errors import LinkError, RequestError
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Delta, FinishReason, Generate, Tokens
from supervisor.dispatch.request import GenerationRequest


class AlreadyEnded(RuntimeError):
    """A second terminal state, or a token after the first one: a defect of the caller."""


class StreamLog:
    """One sequence. Only its model's group writes to it; streams read it.

    Invariants: tokens are only ever appended, and only those of the newest epoch in `epochs`, at
    the position that comes next; `texts[i]` is what the i-th appended delta made fit to be sent;
    there is at most one terminal state (`finish` or `error`), and nothing changes after it.
    """

    __slots__ = (
        "choice",
        "epochs",
        "error",
        "fingerprint",
        "finish",
        "fruitless_dispatches",
        "index",
        "n_cached",
        "no",
        "prompt_index",
        "prompt_tokens",
        "request",
        "scope",
        "texts",
        "tokens",
    )

    def __init__(
        self,
        no: RequestNo,
        request: GenerationRequest,
        *,
        prompt_index: int = 0,
        choice: int = 0,
        scope: str = "",
    ) -> None:
        self.no = no
        self.request = request
        self.prompt_index = prompt_index
        self.choice = choice
        self.index = prompt_index * request.n + choice
        """Its number among all choices of the answer, as OpenAI counts them."""
        self.scope = scope
        self.prompt_tokens: Tokens | None = None
        self.fingerprint: str | None = None
        """Of the model whose tokens these are."""
        self.tokens = array("i")
        self.texts: list[str] = []
        self.epochs: list[Epoch] = []
        self.n_cached: int | None = None
        """Prompt tokens found in a cache at the first start; a replay's hits don't count."""
        self.fruitless_dispatches = 0
        """Times that it was sent to a worker since it last gained a token."""
        self.finish: FinishReason | None = None
        self.error: RequestError | None = None

    @classmethod
    def of_another_front(
        cls, no: RequestNo, request: GenerationRequest, sequence: Generate
    ) -> Self:
        """The log of a sequence that another front began, with the tokens that it has. Their
        text was sent there."""
        log = cls(no, request, scope=sequence.scope)
        log.choice = sequence.choice
        log.prompt_tokens = sequence.prompt_tokens
        log.tokens.extend(sequence.tokens)
        log.n_cached = 0
        return log

    @property
    def n_known(self) -> int:
        """Tokens that a worker has to compute before the next one: prompt and generated."""
        return len(self.prompt_tokens or ()) + len(self.tokens)

    @property
    def ended(self) -> bool:
        """Whether it has its terminal state."""
        return self.finish is not None or self.error is not None

    def to_generate(self, epoch: Epoch) -> Generate:
        """The message that starts it on a worker, or goes on with it: with the tokens it has.

        From here on, deltas of any other epoch are dropped.
        """
        if self.prompt_tokens is None:
            raise ValueError("a sequence cannot start before its prompt is prepared")
        if self.ended:
            raise AlreadyEnded(f"sequence {self.no} cannot start again")
        self.epochs.append(epoch)
        self.fruitless_dispatches += 1
        request = self.request
        return Generate(
            epoch,
            self.no,
            request.id,
            self.choice,
            self.prompt_tokens,
            request.sampling,
            max_tokens=request.max_tokens,
            stop=request.stop,
            tokens=tuple(self.tokens),
            replay=request.replay,
            cache_prompt=request.cache_prompt,
            scope=self.scope,
        )

    def started(self, n_cached: int) -> bool:
        """Note what the first start found in a cache. False if that is known already."""
        if self.n_cached is not None:
            return False
        self.n_cached = min(n_cached, len(self.prompt_tokens or ()))
        return True

    def append(self, delta: Delta, epoch: Epoch) -> bool:
        """Log what a step brought. False if it was dropped: an older epoch's, or had already.

        Raises `LinkError` for a position that is not the next one: tokens are missing.
        """
        if not self.epochs or epoch != self.epochs[-1] or self.ended:
            return False
        n_tokens = len(self.tokens)
        if delta.position != n_tokens:
            # an end is never a mere repetition: dropping it would leave the sequence open for ever
            if delta.position + len(delta.tokens) <= n_tokens and delta.finish is None:
                return False
            raise LinkError(
                f"sequence {self.no} has {n_tokens} tokens and got some at {delta.position}"
            )
        if delta.tokens:
            self.tokens.extend(delta.tokens)
            self.fruitless_dispatches = 0
        self.texts.append(delta.text)
        self.finish = delta.finish
        return True

    def cancel(self) -> None:
        """The terminal state of a sequence that nobody wants any more."""
        self._require_open()
        self.finish = FinishReason.CANCELLED

    def fail(self, error: RequestError) -> None:
        """The terminal state of a sequence that cannot be finished."""
        self._require_open()
        self.error = error

    def _require_open(self) -> None:
        if self.ended:
            raise AlreadyEnded(f"sequence {self.no} has ended with {self.finish or self.error!r}")
