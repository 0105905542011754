"""llama-server's forms of a prompt: a text, token ids, both mixed, or a list of these."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from gpufc.errors import InvalidRequest
from gpufc.protocol import Prompt, TextPrompt, TokenPrompt
from supervisor.http.edge.context import Services
from supervisor.http.generation.fields import MAX_TOKEN_IDS, TokenId

MAX_PIECES = 256
"""Texts in one mixed prompt. Each one is a question to a worker."""


class PromptObject(Struct, frozen=True):
    """A text with media. Only texts are served."""

    prompt_string: str
    multimodal_data: Any = None


Mixed = Annotated[list[TokenId | str], Meta(max_length=MAX_TOKEN_IDS)]
OnePrompt = str | PromptObject | Mixed
GivenPrompt = (
    str
    | PromptObject
    | Annotated[list[TokenId | str | PromptObject | Mixed], Meta(max_length=MAX_TOKEN_IDS)]
)


async def prompts_of(
    front: Services, model: str, given: GivenPrompt, most: int
) -> tuple[Prompt, ...]:
    """The prompts. A list of texts is several prompts, one with token ids in it is one prompt.

    Raises `RequestError`.
    """
    prompts = _separate(given)
    if len(prompts) > most:
        raise InvalidRequest(f"at most {most} prompts", param="prompt")
    return tuple([await _prompt(front, model, one) for one in prompts])


def _separate(given: GivenPrompt) -> list[OnePrompt]:
    if not isinstance(given, list):
        return [given]
    # sets of types, because a loop over all items would block the event loop for too long
    kinds = set(map(type, given))
    if not kinds:
        raise InvalidRequest("a prompt is not an empty list", param="prompt")
    if int not in kinds:
        return given  # type: ignore[return-value]
    if kinds <= {int, str}:
        return [given]  # type: ignore[list-item]
    raise InvalidRequest("token ids stand in a list of their own", param="prompt")


async def _prompt(front: Services, model: str, given: OnePrompt) -> Prompt:
    match given:
        case str():
            return TextPrompt(given)
        case PromptObject():
            if given.multimodal_data:
                raise InvalidRequest("the model takes text only", param="prompt.multimodal_data")
            return TextPrompt(given.prompt_string)
        case _:
            return await _mixed(front, model, given)


async def _mixed(front: Services, model: str, given: list[int | str]) -> TokenPrompt:
    """Token ids as they are, texts tokenized where they stand. Only a text at the beginning gets
    BOS."""
    if set(map(type, given)) <= {int}:
        return TokenPrompt(tuple(given))  # type: ignore[arg-type]
    if sum(isinstance(piece, str) for piece in given) > MAX_PIECES:
        raise InvalidRequest(f"at most {MAX_PIECES} texts in a prompt", param="prompt")
    tokens: list[int] = []
    for index, piece in enumerate(given):
        if isinstance(piece, int):
            tokens.append(piece)
        elif piece:
            text = TextPrompt(piece, add_special=index == 0)
            # a text that is only counted would end with EOS where the model wants it
            tokens += await front.dispatcher.asking.prepare(model, text, reserve=0)
    return TokenPrompt(tuple(tokens))
