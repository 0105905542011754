"""The log probabilities of a sequence's tokens, until a delta tells them. Pure."""

from collections.abc import Iterable

from engine_worker.text.detokenizer import Detokenizer
from gpufc.protocol import Logprob, TokenLogprobs

Scored = tuple[Logprob, tuple[Logprob, ...]]
"""A token, and the best tokens of its row."""


class GeneratedLogprobs:
    """Those of the tokens that this worker generates.

    Each token is `added` when it is chosen, and `read` when it is turned into text, in the same
    order. Tokens of an earlier worker are only read: that worker has told theirs.
    """

    def __init__(self, n_known: int) -> None:
        self._n_known = n_known
        self._scored: list[Scored] = []
        self._n_chars: list[int] = []

    def add(self, scored: Scored) -> None:
        self._scored.append(scored)

    def read(self, n_chars: int) -> None:
        """The next token has ended so many characters of text."""
        if self._n_known:
            self._n_known -= 1
        else:
            self._n_chars.append(n_chars)

    def take(self) -> tuple[TokenLogprobs, ...]:
        """Those of all tokens since the last call. All of them have been read."""
        pairs = zip(self._scored, self._n_chars, strict=True)
        found = tuple(TokenLogprobs(token, top, n_chars) for (token, top), n_chars in pairs)
        self._scored, self._n_chars = [], []
        return found


class PromptLogprobs:
    """Those of a prompt's tokens, in order, while chunks of the prompt are computed.

    The first token has no logits before it. Each other token's logits are those of the row before.
    """

    def __init__(self, n_prompt: int) -> None:
        self._n_prompt = n_prompt
        self._scored: list[Scored] = []
        self._is_told = False

    @property
    def is_open(self) -> bool:
        """Whether rows of the prompt are still wanted."""
        return len(self._scored) < self._n_prompt

    def add(self, scored: Iterable[Scored]) -> None:
        self._scored += scored

    def restart(self) -> None:
        """The prompt will be computed again from its beginning."""
        if self.is_open:
            self._scored.clear()

    def take(self) -> tuple[TokenLogprobs, ...]:
        """Those of the whole prompt, once."""
        if self._is_told or self.is_open:
            return ()
        self._is_told = True
        text = Detokenizer()
        return tuple(
            TokenLogprobs(token, top, len(text.feed(token.piece))) for token, top in self._scored
        )
