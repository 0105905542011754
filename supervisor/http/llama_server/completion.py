"""`POST /completion` and `/infill`."""

from typing import Annotated, ClassVar

from aiohttp import web
from msgspec import Meta, Struct

from gpufc.protocol import ContextFile, InfillPrompt, Prompt
from supervisor.answers.whole import WholeAnswer
from supervisor.http.edge.body import read_json
from supervisor.http.edge.context import services
from supervisor.http.generation import validation
from supervisor.http.generation.dialect import Exchange
from supervisor.http.generation.fields import GenerationFields
from supervisor.http.generation.generate import Asked, generate
from supervisor.http.generation.logprobs import probabilities
from supervisor.http.llama_server.answers import Shape, native_completion
from supervisor.http.llama_server.chunks import NativeChunks
from supervisor.http.llama_server.indentation import reading_of
from supervisor.http.llama_server.probabilities import written
from supervisor.http.llama_server.prompts import GivenPrompt, prompts_of

MAX_INDENT = 1024
MAX_RESPONSE_FIELDS = 64


class NativeFields(GenerationFields, kw_only=True):
    """The fields of both routes, beside those that all generating routes share."""

    SERVED: ClassVar[frozenset[str]] = frozenset({"n_indent", "response_fields", "return_tokens"})

    n_indent: Annotated[int, Meta(ge=0, le=MAX_INDENT)] | None = None
    response_fields: Annotated[list[str], Meta(max_length=MAX_RESPONSE_FIELDS)] | None = None
    return_tokens: bool | None = None


class NativeBody(NativeFields, kw_only=True):
    prompt: GivenPrompt


class ExtraFile(Struct, frozen=True):
    """A file whose text stands before the code to complete."""

    text: str
    filename: str | None = None


class InfillBody(NativeFields, kw_only=True):
    """A gap between two texts. `prompt` is the beginning of the text in the gap.

    `t_max_predict_ms` is a wish of editors that changes no token: `n_predict` bounds the answer.
    They also list llama-server's sampler `infill`, which is not built.
    """

    SERVED: ClassVar[frozenset[str]] = NativeFields.SERVED | {"input_extra", "t_max_predict_ms"}

    input_prefix: str
    input_suffix: str
    input_extra: list[ExtraFile] | None = None
    prompt: str | None = None


async def create_completion(request: web.Request) -> web.StreamResponse:
    """Continue one or more prompts, in llama-server's own form."""
    body = await read_json(request, NativeBody)
    front = services(request)
    model = front.fleet.resolve(body.model)
    prompts = await prompts_of(front, model, body.prompt, front.config.limits.max_prompts)
    return await _answer(request, body, prompts)


async def fill_gap(request: web.Request) -> web.StreamResponse:
    """Write the text between a prefix and a suffix."""
    body = await read_json(request, InfillBody)
    if isinstance(body.samplers, list):
        body.samplers = [name for name in body.samplers if name != "infill"] or None
    files = tuple(ContextFile(file.filename or "", file.text) for file in body.input_extra or ())
    prefix = body.input_prefix + (body.prompt or "")
    prompt = InfillPrompt(prefix, body.input_suffix, files, param="input_suffix")
    return await _answer(request, body, (prompt,))


async def _answer(
    request: web.Request, body: NativeFields, prompts: tuple[Prompt, ...]
) -> web.StreamResponse:
    limit = validation.max_tokens(body, None, None)
    wanted = probabilities(body, services(request).config.limits)
    asked = Asked(prompts, limit, reading_of(body.n_indent), logprobs=wanted)
    shape = Shape(bool(body.return_tokens), tuple(body.response_fields or ()))
    return await generate(request, body, asked, NativeDialect(shape))


class NativeDialect(Struct, frozen=True):
    """llama-server's own completions. Implements `Dialect`."""

    shape: Shape
    id_prefix: str = "native-"

    def whole(self, exchange: Exchange, choices: list[WholeAnswer]) -> object:
        """One object for one choice, else a list."""
        answers = [
            native_completion(
                exchange,
                index,
                choice.ended,
                self.shape,
                content=choice.text,
                has_new_line="\n" in choice.text,
                probabilities=written(choice.logprobs, exchange.request.logprobs),
            )
            for index, choice in enumerate(choices)
        ]
        return answers[0] if len(answers) == 1 else answers

    def encoder(self, exchange: Exchange) -> NativeChunks:
        return NativeChunks(exchange, self.shape)
