"""From the inputs of embeddings and the pairs of rerankers to token ids, or a refusal."""

import re
from collections.abc import Callable

from msgspec import Struct

from engine_worker.prompts.known_tokens import require_known
from engine_worker.prompts.special_tokens import unused_mark
from engine_worker.prompts.tokenizer import Apart, Tokenizer
from gpufc.errors import ContextLengthExceeded, InvalidRequest
from gpufc.facts import ModelFacts, Pooling
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Embed, EmbeddingInput, PairPrompt, TextPrompt, TokenPrompt, Tokens

RANK_TEMPLATE = "rerank"
"""The name under which a model brings the form of its pairs, with `{query}` and `{document}`."""

SHORTENED_TO = 0.95
"""A document that is too long is cut to this part of the room that the tokens so far suggest."""

_PLACES = re.compile(r"\{(query|document)\}")


Key = tuple[Epoch, RequestNo]


class Wanted(Struct, frozen=True):
    """An `Embed` with its tokens. No input is empty or longer than the model's limit."""

    epoch: Epoch
    request: RequestNo
    inputs: tuple[Tokens, ...]
    dimensions: int | None = None

    @property
    def key(self) -> Key:
        return self.epoch, self.request


def require_generation(facts: ModelFacts) -> None:
    """Raises `InvalidRequest` for a model that generates no text."""
    if not facts.generates:
        work, route = (
            ("ranks documents", "/v1/rerank")
            if facts.pooling is Pooling.RANK
            else ("embeds texts", "/v1/embeddings")
        )
        raise InvalidRequest(f"This model only {work}: use {route}", param="model")


class EmbeddingInputs:
    """Prepares inputs for one model. Used from one thread, beside the engine's."""

    def __init__(
        self,
        facts: ModelFacts,
        tokenizer: Tokenizer,
        rank_template: str | None = None,
        apart: Apart | None = None,
    ) -> None:
        """Without `apart`, texts that need one raise `tokenizer.NeedsApart`."""
        self._facts, self._tokenizer, self._apart = facts, tokenizer, apart
        self._rank_template = rank_template

    def require_possible(self, wanted: Embed) -> None:
        """Raises `InvalidRequest` where the model does not have what is wanted."""
        facts = self._facts
        wants_scores = any(isinstance(one, PairPrompt) for one in wanted.inputs)
        if wants_scores and facts.pooling is not Pooling.RANK:
            raise InvalidRequest("This model does not rank documents", param="model")
        if not wants_scores and not facts.embedding_size:
            raise InvalidRequest("This model does not embed texts", param="model")
        if wanted.dimensions is not None and wanted.dimensions > facts.embedding_size:
            raise InvalidRequest(
                f"dimensions is at most {facts.embedding_size}, the size of this model's"
                " embeddings",
                param="dimensions",
            )

    def tokens(
        self,
        given: EmbeddingInput,
        *,
        truncate: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Tokens:
        """An input's token ids, never none. With `truncate`, one that is too long is cut.

        Raises `ContextLengthExceeded`, `InvalidRequest` for token ids outside the vocabulary, and
        `NeedsApart` and `PrepareCancelled`.
        """
        match given:
            case TextPrompt(text):
                found = self._text(text, cancelled)
                most = self._facts.embedding_tokens - len(self._tokenizer.last)
                if truncate and len(found) > most:
                    found = found[:most]
                found = found + self._tokenizer.last
            case TokenPrompt(found):
                require_known(found, self._facts.n_vocab, "input")
                found = found[: self._facts.embedding_tokens] if truncate else found
            case PairPrompt():
                found = self._pair(given, cancelled, truncate=truncate)
        found = found or self._least()
        if len(found) > self._facts.embedding_tokens:
            raise ContextLengthExceeded(
                f"An input of {len(found)} tokens is longer than this model's"
                f" {self._facts.embedding_tokens}",
                param="input",
            )
        return found

    def _text(self, text: str, cancelled: Callable[[], bool]) -> Tokens:
        return (*self._tokenizer.first, *self._tokens(text, cancelled))

    def _pair(self, pair: PairPrompt, cancelled: Callable[[], bool], *, truncate: bool) -> Tokens:
        query, document = pair.query, pair.document
        most = self._facts.embedding_tokens
        while True:
            found = self._joined(query, document, cancelled)
            if not truncate or len(found) <= most or not document:
                return found
            n_document = max(1, len(found) - len(self._joined(query, "", cancelled)))
            kept = (most - len(found) + n_document) / n_document
            document = document[: int(len(document) * max(0.0, kept) * SHORTENED_TO)]

    def _joined(self, query: str, document: str, cancelled: Callable[[], bool]) -> Tokens:
        """One pair in the model's form: its template, or separators between the texts."""
        if self._rank_template is not None:
            return self._rendered(self._rank_template, query, document, cancelled)
        tokenizer = self._tokenizer
        return (
            *tokenizer.first,
            *self._tokens(query, cancelled, parse_special=False),
            *tokenizer.between,
            *self._tokens(document, cancelled, parse_special=False),
            *tokenizer.last,
        )

    def _rendered(
        self, template: str, query: str, document: str, cancelled: Callable[[], bool]
    ) -> Tokens:
        """Control tokens that a text spells are text, as in a chat."""
        mark = unused_mark([template, query, document])
        texts = {"query": query, "document": document}
        marked = {name: self._tokenizer.special.marked(text, mark) for name, text in texts.items()}
        text = _PLACES.sub(lambda place: str(marked[place[1]]), template)
        return tuple(self._tokens(text, cancelled, mark=mark))

    def _tokens(
        self,
        text: str,
        cancelled: Callable[[], bool],
        *,
        parse_special: bool = True,
        mark: str = "",
    ) -> list[int]:
        return self._tokenizer.tokenize(
            text,
            parse_special=parse_special,
            mark=mark,
            apart=self._apart,
            cancelled=cancelled,
        )

    def _least(self) -> Tokens:
        """What an empty input becomes: there must be a token to compute."""
        around = (*self._tokenizer.first, *self._tokenizer.last)
        bos = self._facts.bos_text
        found = around or tuple(self._tokenizer.tokenize(bos or " ", parse_special=True)[:1])
        if not found:
            raise InvalidRequest("the input is empty", param="input")
        return found
