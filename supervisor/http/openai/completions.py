"""`POST /v1/completions`."""

from collections.abc import Sequence
from heapq import nlargest
from typing import Annotated, ClassVar

from aiohttp import web
from msgspec import Meta, Struct, structs

from gpufc.config import LimitsConfig
from gpufc.errors import InvalidRequest
from gpufc.protocol import InfillPrompt, LogprobsWanted, Prompt, TextPrompt, TokenPrompt
from supervisor.answers.whole import WholeAnswer
from supervisor.http.edge.body import read_json
from supervisor.http.edge.context import Services, services
from supervisor.http.generation import validation
from supervisor.http.generation.dialect import Exchange
from supervisor.http.generation.fields import (
    MAX_TOKEN_IDS,
    GenerationFields,
    TokenId,
    TokenIds,
)
from supervisor.http.generation.generate import Asked, generate
from supervisor.http.generation.logprobs import completion_logprobs
from supervisor.http.openai.chunks import CompletionChunks
from supervisor.http.openai.logprobs import (
    CompletionLogprobs,
    mean_logprob,
    offsets_from,
    prompt_offsets,
)
from supervisor.http.openai.logprobs import completion_logprobs as logprobs_object
from supervisor.http.openai.schemas import (
    AnswerObject,
    FinishReason,
    UsageObject,
    answer_fields,
    finish_reason,
)

DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""


class CompletionBody(GenerationFields, kw_only=True):
    """A prompt is a text, a list of texts, a list of token ids, or a list of such lists."""

    SERVED: ClassVar[frozenset[str]] = frozenset({"best_of", "echo", "suffix"})

    prompt: str | Annotated[list[str | TokenId | TokenIds], Meta(max_length=MAX_TOKEN_IDS)]
    best_of: Annotated[int, Meta(ge=1)] | None = None
    echo: bool | None = None
    suffix: str | None = None


class CompletionChoice(Struct, frozen=True, kw_only=True):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason


class Completion(AnswerObject, frozen=True, kw_only=True):
    object: str = "text_completion"
    choices: list[CompletionChoice]
    usage: UsageObject


async def create_completion(request: web.Request) -> web.StreamResponse:
    """Continue one or more prompts."""
    body = await read_json(request, CompletionBody)
    front = services(request)
    limits = front.config.limits
    limit = validation.max_tokens(body, None, DEFAULT_MAX_TOKENS)
    prompts = _prompts(body, limits.max_prompts)
    logprobs = completion_logprobs(body, limits)
    if body.echo and logprobs is not None:
        logprobs = structs.replace(logprobs, prompt=True)
    dialect = CompletionDialect(
        body.includes_usage,
        n=body.n or 1,
        echo=await _echoed(front, body, prompts) if body.echo else (),
        shows_logprobs=logprobs is not None,
    )
    best_of = _best_of(body, limits)
    if best_of is not None and logprobs is None:
        logprobs = LogprobsWanted()  # to choose by
    asked = Asked(prompts, limit, logprobs=logprobs, best_of=best_of)
    return await generate(request, body, asked, dialect)


def _best_of(body: CompletionBody, limits: LimitsConfig) -> int | None:
    """How many choices to generate for each prompt; None if all of them are shown."""
    n, best_of = body.n or 1, body.best_of
    if best_of is None or best_of == n:
        return None
    if not n <= best_of <= limits.max_n:
        raise InvalidRequest(f"best_of is from n, {n}, to {limits.max_n}", param="best_of")
    if body.stream:
        raise InvalidRequest("the best of several cannot be streamed", param="best_of")
    return best_of


async def _echoed(
    front: Services, body: CompletionBody, prompts: Sequence[Prompt]
) -> tuple[str, ...]:
    """The text of each prompt."""
    if body.suffix:
        raise InvalidRequest("echo and suffix exclude each other", param="echo")
    model = front.fleet.resolve(body.model)
    ids = [prompt.tokens for prompt in prompts if isinstance(prompt, TokenPrompt)]
    spelt = iter(await front.dispatcher.asking.detokenize(model, ids) if ids else ())
    return tuple(
        prompt.text if isinstance(prompt, TextPrompt) else next(spelt).decode("utf-8", "replace")
        for prompt in prompts
    )


def _prompts(body: CompletionBody, most: int) -> tuple[Prompt, ...]:
    prompts = _given(body, most)
    if not body.suffix:
        return prompts
    return tuple(_before(prompt, body.suffix) for prompt in prompts)


def _before(prompt: Prompt, suffix: str) -> InfillPrompt:
    if not isinstance(prompt, TextPrompt):
        raise InvalidRequest("a suffix needs prompts that are texts", param="suffix")
    return InfillPrompt(prompt.text, suffix)


def _given(body: CompletionBody, most: int) -> tuple[Prompt, ...]:
    given = body.prompt
    if isinstance(given, str):
        return (TextPrompt(given),)
    # sets of types, because a loop over all items would block the event loop for too long
    kinds = set(map(type, given))
    if kinds == {int}:
        return (TokenPrompt(tuple(given)),)  # type: ignore[arg-type]
    if kinds not in ({str}, {tuple}):
        raise InvalidRequest(
            "prompt is a string, a list of strings, a list of token ids, or a list of such lists",
            param="prompt",
        )
    if len(given) > most:
        raise InvalidRequest(f"at most {most} prompts", param="prompt")
    return tuple(
        TextPrompt(item) if isinstance(item, str) else TokenPrompt(item)  # type: ignore[arg-type]
        for item in given
    )


class CompletionDialect(Struct, frozen=True):
    """OpenAI's completions. Implements `Dialect`.

    Of each prompt's choices the `n` most likely ones are shown. With `echo`, the texts of the
    prompts, each choice begins with its prompt's.
    """

    include_usage: bool
    id_prefix: str = "cmpl-"
    n: int = 1
    echo: tuple[str, ...] = ()
    shows_logprobs: bool = False

    def whole(self, exchange: Exchange, choices: list[WholeAnswer]) -> Completion:
        n_generated = exchange.request.n
        shown: list[CompletionChoice] = []
        for start in range(0, len(choices), n_generated):
            best = choices[start : start + n_generated]
            if n_generated > self.n:
                best = nlargest(self.n, best, key=lambda choice: mean_logprob(choice.logprobs))
            echo = self.echo[start // n_generated] if self.echo else ""
            shown += [
                self._choice(len(shown) + number, echo, choice, exchange)
                for number, choice in enumerate(best)
            ]
        return Completion(
            **answer_fields(exchange), choices=shown, usage=UsageObject.of(exchange.usage())
        )

    def _choice(
        self, index: int, echo: str, choice: WholeAnswer, exchange: Exchange
    ) -> CompletionChoice:
        return CompletionChoice(
            index=index,
            text=echo + choice.text,
            logprobs=self._logprobs(echo, choice, exchange),
            finish_reason=finish_reason(choice.ended),
        )

    def _logprobs(
        self, echo: str, choice: WholeAnswer, exchange: Exchange
    ) -> CompletionLogprobs | None:
        wanted = exchange.request.logprobs
        if wanted is None or not self.shows_logprobs:
            return None
        entries = (*choice.prompt_logprobs, *choice.logprobs)
        offsets = [
            *prompt_offsets(echo, choice.prompt_logprobs),
            *offsets_from(len(echo), choice.logprobs),
        ]
        return logprobs_object(entries, offsets, wanted.n_top)

    def encoder(self, exchange: Exchange) -> CompletionChunks:
        return CompletionChunks(exchange, include_usage=self.include_usage, echo=self.echo)
