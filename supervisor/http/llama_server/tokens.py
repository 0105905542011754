"""`POST /tokenize` and `/detokenize`, with llama-server's fields and answers."""

from collections.abc import Sequence

from aiohttp import web
from msgspec import Struct

from gpufc.protocol import TextPrompt
from supervisor.http.edge.body import hold_answer, read_json
from supervisor.http.edge.context import json_response, listed_response, services
from supervisor.http.generation.fields import TokenIds


class TokenizeBody(Struct, frozen=True):
    """The defaults are llama-server's."""

    content: str
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None
    model: str | None = None


class DetokenizeBody(Struct, frozen=True):
    tokens: TokenIds
    model: str | None = None


class Piece(Struct, frozen=True):
    """A token with its text, or with its bytes where they are not whole characters."""

    id: int
    piece: str | list[int]


class Tokenized(Struct, frozen=True):
    tokens: list[int | Piece]


PART = 4096
"""Tokens of an answer that are written in one go."""

TOKEN_BYTES, PIECE_BYTES = 48, 160
"""Memory of a token until it is answered, without and with its text."""

TEXT_COPIES = 3
"""A text of tokens is there as bytes, as text and as JSON."""


class Detokenized(Struct, frozen=True):
    content: str


async def tokenize(request: web.Request) -> web.Response:
    """The token ids of a text."""
    body = await read_json(request, TokenizeBody)
    front = services(request)
    model = front.fleet.resolve(body.model)
    if not body.content and not body.add_special:
        return json_response(Tokenized([]))
    parse_special = body.parse_special is not False
    prompt = TextPrompt(body.content, bool(body.add_special), parse_special)
    tokens = await front.dispatcher.asking.prepare(model, prompt, reserve=None)
    hold_answer(request, len(tokens) * (PIECE_BYTES if body.with_pieces else TOKEN_BYTES))
    parts = [slice(at, at + PART) for at in range(0, len(tokens), PART)]
    if not body.with_pieces:
        return await listed_response(
            "tokens", lambda: (list(tokens[part]) for part in parts), len(tokens)
        )
    spelt = await front.dispatcher.asking.detokenize(model, ((token,) for token in tokens))
    return await listed_response(
        "tokens", lambda: (_with_pieces(tokens[part], spelt[part]) for part in parts), len(tokens)
    )


def _with_pieces(tokens: Sequence[int], spelt: Sequence[bytes]) -> list[Piece]:
    return [Piece(token, _piece(text)) for token, text in zip(tokens, spelt, strict=True)]


async def detokenize(request: web.Request) -> web.Response:
    """The text of token ids."""
    body = await read_json(request, DetokenizeBody)
    front = services(request)
    model = front.fleet.resolve(body.model)
    if not body.tokens:
        return json_response(Detokenized(""))
    (text,) = await front.dispatcher.asking.detokenize(model, [body.tokens])
    hold_answer(request, TEXT_COPIES * len(text))
    return json_response(Detokenized(text.decode(errors="replace")))


def _piece(spelling: bytes) -> str | list[int]:
    try:
        return spelling.decode()
    except UnicodeDecodeError:
        return list(spelling)
