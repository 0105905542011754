"""The record of one sequence: its request, and every token that any worker produced for it.

Pure. Every reader reads tokens from here, so that a client never has a token that was not logged
first. The log alone is enough to go on with the sequence on another worker.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence

from msgspec import structs

from gpufc.errors import LinkError, RequestError
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import (
    AS_IT_CAME,
    Delta,
    FinishReason,
    SamplerState,
    TokenLogprobs,
    Tokens,
)
from supervisor.dispatch.request import GenerationRequest, Reading, ReadingOf, Watch


class AlreadyEnded(RuntimeError):
    """A start, or a second end, of a sequence that has ended: a defect of the caller."""


class StreamLog:
    """One sequence. Only its model's group writes to it; streams read it.

    Invariants: `tokens` only grows, by tokens of the newest epoch in `epochs` at the next position;
    `texts[i]` is the text that the i-th appended delta released; there is at most one terminal
    state (`finish` or `error`), and nothing changes after it.

    `logprobs` has an entry for each of `tokens` where the request wants them; `prompt_logprobs` are
    those of the prompt, there with the first delta. `sampler_state` is that after the last token.

    `opening` is the end of the prompt's text. `batching` is a policy's wish.

    `index` numbers all choices of an answer as OpenAI does: prompt by prompt. `fingerprint` is
    that of the model that `prompt_tokens` and `tokens` belong to. `n_cached` counts the prompt
    tokens found in a cache at the first start; later starts do not change it.
    `fruitless_dispatches` counts the starts since the sequence last gained a token, without those
    that `excused_kills` has ended. `stopped_by` is the index of the stop string that ended it.
    `watch` ends it early, if its reading has one; it has been given all of `texts`.
    """

    __slots__ = (
        "_reading",
        "batching",
        "by_end_token",
        "choice",
        "epochs",
        "error",
        "excused_kills",
        "fingerprint",
        "finish",
        "fruitless_dispatches",
        "index",
        "logprobs",
        "n_cached",
        "no",
        "opening",
        "prompt_index",
        "prompt_logprobs",
        "prompt_tokens",
        "request",
        "sampler_state",
        "scope",
        "stopped_by",
        "texts",
        "tokens",
        "watch",
        "yields",
    )

    def __init__(
        self,
        no: RequestNo,
        request: GenerationRequest,
        *,
        prompt_index: int = 0,
        choice: int = 0,
        scope: str = "",
        yields: bool = False,
    ) -> None:
        self.no = no
        self.request = request
        self.prompt_index = prompt_index
        self.choice = choice
        self.index = prompt_index * request.n + choice
        self.scope = scope
        self._reading: Reading | None = None
        self.prompt_tokens: Tokens | None = None
        self.opening = ""
        self.batching = AS_IT_CAME
        self.yields = yields
        self.fingerprint: str | None = None
        self.tokens = array("i")
        self.logprobs: list[TokenLogprobs] = []
        self.prompt_logprobs: tuple[TokenLogprobs, ...] = ()
        self.texts: list[str] = []
        self.watch: Watch | None = None
        self.sampler_state: SamplerState = ()
        self.epochs: list[Epoch] = []
        self.n_cached: int | None = None
        self.fruitless_dispatches = self.excused_kills = 0
        self.finish: FinishReason | None = None
        self.by_end_token = False
        self.stopped_by: int | None = None
        self.error: RequestError | None = None

    @property
    def n_known(self) -> int:
        """Tokens that a replay has to prefill: prompt and generated ones."""
        return len(self.prompt_tokens or ()) + len(self.tokens)

    @property
    def reading(self) -> Reading:
        """How its text is read. Defined once its prompt is prepared. From the start on it stays:
        the text is that of the model then, which may be replaced before all of it is read."""
        return self._reading or self.request.reading(self.opening)

    @property
    def n_generated(self) -> int:
        """The tokens that the model has generated, the end token included."""
        return len(self.tokens) + self.by_end_token

    @property
    def stop(self) -> str | None:
        """The stop string that ended it."""
        stops, found = self.request.stop, self.stopped_by
        return None if found is None or found >= len(stops) else stops[found]

    @property
    def ended(self) -> bool:
        """Whether it has its terminal state."""
        return self.finish is not None or self.error is not None

    def prepared(self, tokens: Tokens, opening: str, fingerprint: str | None) -> None:
        """A model has made its prompt's tokens. It may be another one than the last time."""
        self.prompt_tokens, self.opening, self.fingerprint = tokens, opening, fingerprint
        self._reading = self.watch = None

    def dispatched(self, epoch: Epoch) -> None:
        """Note that it is sent to a worker. From here on, deltas of any other epoch are dropped."""
        self._require_open()
        self._reading = self.reading
        if self.watch is None and self._reading.new_watch is not None:
            self.watch = self._reading.new_watch()
        self.epochs.append(epoch)
        self.fruitless_dispatches += 1

    def started(self, n_cached: int) -> bool:
        """Note the cache hits of the first start. False for any later start."""
        if self.n_cached is not None:
            return False
        self.n_cached = min(n_cached, len(self.prompt_tokens or ()))
        return True

    def append(self, delta: Delta, epoch: Epoch) -> bool:
        """Log one step's delta. False if it is dropped: of an older epoch, or logged already.

        Raises `LinkError` for a position beyond the next one: tokens are missing.
        """
        if not self.epochs or epoch != self.epochs[-1]:
            return False
        if self.finish is not None or self.error is not None:
            return False
        n_tokens = len(self.tokens)
        if delta.position != n_tokens:
            # a delta with an end must not be dropped: the sequence would stay open for ever
            if delta.position + len(delta.tokens) <= n_tokens and delta.finish is None:
                return False
            raise LinkError(
                f"sequence {self.no} has {n_tokens} tokens and got some at {delta.position}"
            )
        tokens = delta.tokens
        if tokens:
            if len(tokens) == 1:  # the usual delta: cheaper than `extend`
                self.tokens.append(tokens[0])
            else:
                self.tokens.extend(tokens)
            self.fruitless_dispatches = self.excused_kills = 0
        if self.request.logprobs is not None:
            self.logprobs += delta.logprobs
            self.prompt_logprobs = self.prompt_logprobs or delta.prompt_logprobs
        self.texts.append(delta.text)
        self.sampler_state = delta.sampler_state
        self.finish = delta.finish
        self.by_end_token = delta.by_end_token
        self.stopped_by = delta.stopped_by
        return True

    def is_enough(self, text: str) -> bool:
        """Whether the answer is whole with the text that was appended last. Then it has ended."""
        if self.watch is None or self.finish is not None or not self.watch(text):
            return False
        self.finish = FinishReason.STOP
        return True

    def begin_as(
        self, prompt_tokens: Tokens, opening: str, fingerprint: str | None, reading: Reading
    ) -> None:
        """Begin as another front has, which has prepared the prompt. Tokens and texts are there
        already."""
        self.prompt_tokens, self.opening, self.fingerprint = prompt_tokens, opening, fingerprint
        self._reading = reading
        if reading.new_watch is not None and self.finish is None:
            self.watch = reading.new_watch()
            self.watch("".join(self.texts))

    def read_as(self, reading: ReadingOf) -> None:
        """Be read that way. No reader has come before."""
        self.request = structs.replace(self.request, reading=reading)
        if self.prompt_tokens is not None:
            self._reading = reading(self.opening)

    def follow(self, other: "StreamLog", text: str, *, final: bool) -> None:
        """Become what `other` is, with this text for what it has gained. Zeros stand for its token
        ids, which would tell its own text. `final`: with its end, too."""
        self._reading = other._reading
        self.prompt_tokens, self.opening = other.prompt_tokens, other.opening
        self.fingerprint, self.n_cached, self.epochs = (
            other.fingerprint,
            other.n_cached,
            other.epochs,
        )
        self.tokens.extend([0] * (len(other.tokens) - len(self.tokens)))
        self.texts.append(text)
        self.by_end_token = other.by_end_token
        self.stopped_by = other.stopped_by
        if final:
            self.finish = other.finish

    def cancel(self) -> None:
        """The terminal state of a sequence that was withdrawn."""
        self._require_open()
        self.finish = FinishReason.CANCELLED

    def fail(self, error: RequestError) -> None:
        """The terminal state of a sequence that cannot be finished."""
        self._require_open()
        self.error = error

    def _require_open(self) -> None:
        if self.ended:
            raise AlreadyEnded(f"sequence {self.no} has ended with {self.finish or self.error!r}")


Restore = Callable[[Sequence[StreamLog]], None]
"""Gives a request's new logs what another front has made."""


def logs_of(
    request: GenerationRequest,
    numbers: Iterator[RequestNo],
    scope: str,
    *,
    yields: bool = False,
) -> list[StreamLog]:
    """New logs for all sequences of a request, prompt by prompt."""
    return [
        StreamLog(
            next(numbers),
            request,
            prompt_index=index,
            choice=choice,
            scope=scope,
            yields=yields,
        )
        for index in range(len(request.prompts))
        for choice in range(request.n)
    ]
