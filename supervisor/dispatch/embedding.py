"""The embeddings of one request: cut into pieces, a few of them open at a time.

A piece is one question to a worker. A lost worker's pieces are asked again of the next one, so that
no more than the open pieces is computed twice, and a piece that kills workers is found quickly.
Owners take turns with their pieces (`embedding_turns.py`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

from msgspec import Struct

from gpufc.errors import EngineCrashed, EngineUnavailable, RequestError
from gpufc.protocol import Embedding, EmbeddingInput, PairPrompt, TokenPrompt
from supervisor.dispatch.ledger import Outcome

PIECE_INPUTS = 64
PIECE_CHARS = 8 << 10
"""Of the inputs of a piece together; a longer input is a piece by itself."""

OPEN_PIECES = 4
"""Of one request. The engine always finds the next pass, also after a round trip."""

MAX_ROUNDS = 4
"""How often a request begins anew because its model has been replaced meanwhile."""

TOKEN_CHARS = 4


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """Inputs to embed, or pairs to score. `truncate` and `dimensions` as in `Embed`."""

    model: str
    inputs: tuple[EmbeddingInput, ...]
    truncate: bool = False
    dimensions: int | None = None


class Computed(Struct, frozen=True):
    """A piece's results, and the fingerprint of the model that made them."""

    embeddings: tuple[Embedding, ...]
    fingerprint: str | None


Piece = tuple[EmbeddingInput, ...]
AskPiece = Callable[[Piece], Awaitable[Computed]]


def outcome_of(error: RequestError) -> Outcome:
    """How a request that ends with this error is counted."""
    if isinstance(error, EngineCrashed):
        return Outcome.LOST
    return Outcome.FAILED if error.status >= 500 else Outcome.REJECTED


def pieces(inputs: Sequence[EmbeddingInput]) -> Iterator[Piece]:
    """The inputs in their order, a piece at a time."""
    piece: list[EmbeddingInput] = []
    n_chars = 0
    for one in inputs:
        size = _size(one)
        if piece and (len(piece) == PIECE_INPUTS or n_chars + size > PIECE_CHARS):
            yield tuple(piece)
            piece, n_chars = [], 0
        piece.append(one)
        n_chars += size
    if piece:
        yield tuple(piece)


async def compute(inputs: Sequence[EmbeddingInput], ask: AskPiece) -> list[Embedding]:
    """The results of all inputs, in their order and of one model.

    Vectors of two models cannot be compared. So the pieces of a model that has been replaced
    meanwhile are asked again. Raises what `ask` raises.
    """
    cut = list(pieces(inputs))
    found: list[Computed | None] = [None] * len(cut)
    for _ in range(MAX_ROUNDS):
        missing = [at for at, computed in enumerate(found) if computed is None]
        latest = await _ask_all(cut, missing, found, ask)
        known = [computed for computed in found if computed is not None]
        if all(computed.fingerprint == latest for computed in known):
            return [embedding for computed in known for embedding in computed.embeddings]
        found = [c if c is not None and c.fingerprint == latest else None for c in found]
    raise EngineUnavailable("The model has been replaced again and again", retry_after_s=5.0)


async def _ask_all(
    cut: Sequence[Piece], missing: Sequence[int], found: list[Computed | None], ask: AskPiece
) -> str | None:
    """Fill in what is missing. Returns the fingerprint of the latest answer."""
    waiting = iter(missing)
    latest: str | None = None

    async def ask_some() -> None:
        nonlocal latest
        for at in waiting:
            computed = found[at] = await ask(cut[at])
            latest = computed.fingerprint

    tasks = [asyncio.create_task(ask_some()) for _ in range(min(OPEN_PIECES, len(missing)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return latest


def size_of(piece: Piece) -> int:
    """The characters in a piece, roughly."""
    return sum(map(_size, piece))


def _size(one: EmbeddingInput) -> int:
    match one:
        case TokenPrompt(tokens):
            return TOKEN_CHARS * len(tokens)
        case PairPrompt(query, document):
            return len(query) + len(document)
        case _:
            return len(one.text)
