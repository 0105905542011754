"""One sequence as the engine sees it: its tokens, how far they are computed, and its text.

Pure: no backend, no clock, no threads. The scheduler alone moves `slot` and `n_computed`; the
engine calls the rest.
"""

from collections.abc import Callable

from engine_worker.backend import Logits
from engine_worker.detokenizer import Detokenizer
from engine_worker.sampling import Sampler
from engine_worker.stop_matcher import StopMatcher
from gpufc.config import Replay
from gpufc.protocol import Delta, FinishReason, Generate


class Sequence:
    """A prompt, one choice for it, and everything needed to go on at the next position.

    Invariant: the text state (detokenizer and stop matcher) has seen exactly the generated
    tokens, so that a sequence made from `Generate.tokens` goes on as if it had produced them
    itself. `tokens[:n_computed]` have cells in KV sequence `slot`; while it waits, `slot` is
    None and `n_computed` 0.
    """

    def __init__(
        self,
        spec: Generate,
        *,
        sampler: Sampler,
        piece: Callable[[int], bytes],
        is_end: Callable[[int], bool],
        n_ctx: int,
    ) -> None:
        self.spec = spec
        self.request = spec.request
        self.tokens: list[int] = [*spec.prompt_tokens, *spec.tokens]
        self.n_prompt = len(spec.prompt_tokens)
        self.slot: int | None = None
        self.n_computed = 0
        self.n_ever_computed = len(self.tokens) - 1 if spec.tokens else 0
        self.announced = False
        self._limit = n_ctx
        if spec.max_tokens is not None:
            self._limit = min(n_ctx, self.n_prompt + spec.max_tokens)
        self._sampler = sampler
        self._piece = piece
        self._is_end = is_end
        self._detokenizer = Detokenizer()
        self._stops = StopMatcher(spec.stop)
        for token in spec.tokens:
            self._stops.feed(self._detokenizer.feed(piece(token)))

    @property
    def n_generated(self) -> int:
        """Tokens generated so far, by whichever worker."""
        return len(self.tokens) - self.n_prompt

    @property
    def n_pending(self) -> int:
        """Known tokens that have no cells yet: 1 while decoding, more in prefill or replay."""
        return len(self.tokens) - self.n_computed

    @property
    def exact(self) -> bool:
        """Whether a continuation must be bit-equal: same kernels, same chunk boundaries."""
        return self.spec.replay is Replay.EXACT

    @property
    def reuses_prefix(self) -> bool:
        """Whether cells that another sequence computed may be used for this one.

        Not in exact replay: what is in the cache the second time is not what was the first.
        """
        return self.spec.cache_prompt and not self.exact

    def next_chunk(self, budget: int) -> int:
        """How many pending tokens to compute next, at most `budget`.

        In exact replay a generated token is fed alone, as it was the first time, so that it
        goes through the single-token kernels; batched ones round differently.
        """
        count = min(self.n_pending, budget)
        if self.exact:
            left_of_prompt = self.n_prompt - self.n_computed
            count = min(count, left_of_prompt if left_of_prompt > 0 else 1)
        return count

    def nothing_to_generate(self) -> Delta | None:
        """The terminal delta of a sequence that is complete before it starts, else None."""
        if len(self.tokens) < self._limit:
            return None
        return Delta(self.request, self.n_generated, (), self._flush(), FinishReason.LENGTH)

    def choose(self, logits: Logits) -> int:
        """The next token, from the logits row after the last known token. Changes nothing."""
        return self._sampler.choose(logits, self.tokens, self.spec.choice, self.n_generated)

    def accept(self, token: int) -> Delta:
        """Take the chosen token and say what it brought; terminal if `finish` is set.

        A token that ends the generation is not part of the answer: it is in no delta.
        """
        position = self.n_generated
        if self._is_end(token):
            return Delta(self.request, position, (), self._flush(), FinishReason.STOP)
        self.tokens.append(token)
        text, stopped = self._stops.feed(self._detokenizer.feed(self._piece(token)))
        finish = None
        if stopped:
            finish = FinishReason.STOP
        elif len(self.tokens) >= self._limit:
            finish = FinishReason.LENGTH
            text += self._flush()
        return Delta(self.request, position, (token,), text, finish)

    def _flush(self) -> str:
        return self._stops.flush()
