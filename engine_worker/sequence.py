"""One sequence as the engine sees it: its tokens, how far they are computed, and its text.

Pure: no backend, no clock, no threads. The scheduler alone moves `slot` and `n_computed`; the
engine calls the rest.
"""

from collections.abc import Callable

from engine_worker.detokenizer import Detokenizer
from engine_worker.sampling import Sampler
from engine_worker.stop_matcher import StopMatcher
from gpufc.config import Replay
from gpufc.protocol import Delta, FinishReason, Generate


class Sequence:
    """A prompt, one choice for it, and everything needed to go on at the next position.

    Invariant: `delta` has read a beginning of the generated tokens, and the text state (detokenizer
    and stop matcher) has seen exactly that; so a sequence made from `Generate.tokens` goes on as if
    it had produced them itself. `tokens[:n_computed]` have cells in KV slot `slot`; while it waits,
    `slot` is None and `n_computed` 0.
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
        self.sampler = sampler
        self.tokens: list[int] = [*spec.prompt_tokens, *spec.tokens]
        self.n_prompt = len(spec.prompt_tokens)
        self.slot: int | None = None
        self.n_computed = 0
        self.n_ever_computed = len(self.tokens) - 1 if spec.tokens else 0
        self.n_steps_waited = 0
        """Steps in which others' prompts were computed before this one's."""
        self.draft: list[int] = []
        """Guesses at the tokens after the last known one, for the next step only."""
        self.announced = False
        self.finish: FinishReason | None = None
        """Why it has ended, if it has."""
        self._limit = n_ctx
        if spec.max_tokens is not None:
            self._limit = min(n_ctx, self.n_prompt + spec.max_tokens)
        self._piece = piece
        self._is_end = is_end
        self._detokenizer = Detokenizer()
        self._stops = StopMatcher(spec.stop)
        self._n_told = len(spec.tokens)
        self._n_read = 0
        self._text = ""
        self._stopped = False
        self._read()
        self._text = ""  # of the tokens that it began with: said by the worker before

    @property
    def n_generated(self) -> int:
        """Tokens generated so far, by whichever worker."""
        return len(self.tokens) - self.n_prompt

    @property
    def n_pending(self) -> int:
        """Known tokens that have no cells yet: 1 while decoding, more in prefill or replay."""
        return len(self.tokens) - self.n_computed

    @property
    def room(self) -> int:
        """Tokens that it may still gain."""
        return self._limit - len(self.tokens)

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
        self.finish = FinishReason.LENGTH
        return self.delta()

    def accept(self, token: int) -> bool:
        """Take the next token. True when that ends the sequence; see `finish`.

        A token that ends the generation is not part of the answer: it is in no delta.
        """
        if self._is_end(token):
            self.finish = FinishReason.STOP
            return True
        self.tokens.append(token)
        if self._stops.any and self._read():
            self.finish = FinishReason.STOP
        elif len(self.tokens) >= self._limit:
            self.finish = FinishReason.LENGTH
        return self.finish is not None

    def delta(self) -> Delta:
        """What it has gained since the last call; terminal if `finish` is set."""
        stopped = self._read()
        text, self._text = self._text, ""
        if self.finish is not None and not stopped:
            text += self._stops.flush()
        position, self._n_told = self._n_told, self.n_generated
        tokens = tuple(self.tokens[self.n_prompt + position :])
        return Delta(self.request, position, tokens, text, self.finish)

    def _read(self) -> bool:
        """Turn tokens that have not been read into text. True once a stop string is found."""
        for token in self.tokens[self.n_prompt + self._n_read :]:
            self._n_read += 1
            text, found = self._stops.feed(self._detokenizer.feed(self._piece(token)))
            self._text += text
            if found:
                self._stopped = True
        return self._stopped
