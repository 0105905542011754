"""`POST /apply-template`: a conversation as the text that a chat would begin with."""

from collections.abc import Sequence

from aiohttp import web
from msgspec import Struct

from gpufc.protocol import TextPrompt
from supervisor.http.edge.body import read_json
from supervisor.http.edge.context import Services, json_response, services
from supervisor.http.generation.chat import ChatFields, asked_of


class AppliedTemplate(Struct, frozen=True):
    prompt: str


async def apply_template(request: web.Request) -> web.Response:
    """The prompt of a conversation, without a BOS that `/completion` would add again."""
    body = await read_json(request, ChatFields)
    front = services(request)
    model = front.fleet.resolve(body.model)
    (prompt,) = asked_of(front, body).prompts
    tokens = await front.dispatcher.asking.prepare(model, prompt, reserve=None)
    tokens = tokens[await _n_added(front, model, tokens) :]
    if not tokens:
        return json_response(AppliedTemplate(""))
    (text,) = await front.dispatcher.asking.detokenize(model, [tokens])
    return json_response(AppliedTemplate(text.decode(errors="replace")))


async def _n_added(front: Services, model: str, tokens: Sequence[int]) -> int:
    """How many tokens at the beginning are put before every text: 0 or 1."""
    marked, plain = [
        await front.dispatcher.asking.prepare(
            model, TextPrompt(".", add_special=added), reserve=None
        )
        for added in (True, False)
    ]
    return int(marked[:1] != plain[:1] and marked[:1] == tokens[:1])
