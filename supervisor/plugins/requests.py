"""A request as plugins see it, and the request with what they have changed. Pure."""

from typing import TypeVar

from msgspec import structs

from gpufc.chat import ChatMessage, ChatPrompt
from gpufc.protocol import InfillPrompt, Prompt, TextPrompt
from supervisor.dispatch.request import GenerationRequest
from supervisor.plugins.structs import Info, Message, Request
from supervisor.plugins.structs import Prompt as Shown

T = TypeVar("T")

MOST_MESSAGES = 4096
SAMPLING = ("temperature", "top_p")
"""The parameters that a plugin may change."""


class Nonsense(ValueError):
    """A plugin has returned a request that cannot be meant."""


def info_of(request: GenerationRequest, principal: str) -> Info:
    """The request's name, model and principal."""
    return Info(request.id, request.model, principal)


def shown(request: GenerationRequest, principal: str) -> Request:
    """What `before_admission` gets."""
    return Request(
        info_of(request, principal),
        [_shown(prompt) for prompt in request.prompts],
        max_tokens=request.max_tokens,
        temperature=request.sampling.temperature,
        top_p=request.sampling.top_p,
    )


def changed(request: GenerationRequest, given: Request) -> GenerationRequest:
    """The request with what a plugin has changed. Raises `Nonsense`."""
    if len(given.prompts) != len(request.prompts):
        raise Nonsense(f"it returned {len(given.prompts)} prompts of {len(request.prompts)}")
    if given.max_tokens is not None and given.max_tokens < 1:
        raise Nonsense(f"it returned max_tokens = {given.max_tokens}")
    if given.temperature is None or not 0 <= given.temperature <= 100:
        raise Nonsense(f"it returned temperature = {given.temperature}")
    if given.top_p is None or not 0 <= given.top_p <= 1:
        raise Nonsense(f"it returned top_p = {given.top_p}")
    pairs = zip(request.prompts, given.prompts, strict=True)
    sampling = {name: getattr(given, name) for name in SAMPLING}
    return structs.replace(
        request,
        prompts=tuple(_changed(prompt, one) for prompt, one in pairs),
        max_tokens=given.max_tokens,
        sampling=structs.replace(request.sampling, **sampling),
    )


def _shown(prompt: Prompt) -> Shown:
    match prompt:
        case TextPrompt(text):
            return Shown(text=text)
        case ChatPrompt(messages):
            turns = [Message(one.role, one.content, n) for n, one in enumerate(messages)]
            return Shown(messages=turns)
        case InfillPrompt(prefix, suffix):
            return Shown(messages=[Message("prefix", prefix, 0), Message("suffix", suffix, 1)])
        case _:
            return Shown()


def _changed(prompt: Prompt, given: Shown) -> Prompt:
    match prompt:
        case TextPrompt():
            return structs.replace(prompt, text=_required(given.text))
        case ChatPrompt():
            turns = _required(given.messages)
            if not 1 <= len(turns) <= MOST_MESSAGES:
                raise Nonsense(f"it returned a chat of {len(turns)} messages")
            return structs.replace(prompt, messages=tuple(_turn(prompt, one) for one in turns))
        case InfillPrompt():
            prefix, suffix = (one.content for one in _required(given.messages)[:2])
            return structs.replace(prompt, prefix=prefix, suffix=suffix)
        case _:
            return prompt


def _required(value: T | None) -> T:
    if value is None:
        raise Nonsense("it returned a prompt of another kind")
    return value


def _turn(prompt: ChatPrompt, given: Message) -> ChatMessage:
    """A turn with the tool calls and names that its origin has."""
    if given.origin is None:
        return ChatMessage(given.role, given.content)
    if not 0 <= given.origin < len(prompt.messages):
        raise Nonsense(f"it returned a message with origin {given.origin}")
    origin = prompt.messages[given.origin]
    return structs.replace(origin, role=given.role, content=given.content)
