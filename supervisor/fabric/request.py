"""From a task to the request of dispatch, on the path of all chats and completions."""

import math
from typing import TypeVar

import msgspec

from gpufc.config import NetworkShare
from gpufc.errors import InvalidRequest
from gpufc.ids import new_request_id
from gpufc.protocol import TextPrompt
from supervisor.dispatch.request import GenerationRequest, Principal, Scope
from supervisor.fabric.messages import ChatInferenceTask, InferenceTask
from supervisor.http.edge.context import Services
from supervisor.http.generation import validation
from supervisor.http.generation.chat import ChatFields, asked_of
from supervisor.http.generation.fields import GenerationFields
from supervisor.http.generation.generate import Asked, accepted
from supervisor.http.generation.history import MAX_MESSAGES

T = TypeVar("T")

Task = InferenceTask | ChatInferenceTask


def principal_of(name: str, share: NetworkShare) -> Principal:
    """A principal of the network. The server does not say which of its users asks, so there is one
    for all tasks, and one for all connections. Their prompts share no cached prefix with local
    ones, so that their speed tells nothing about those."""
    yields = share is NetworkShare.LOCAL
    return Principal(name, frozenset({Scope.GENERATE}), cache_scope="network", yields=yields)


def request_of(front: Services, task: Task) -> GenerationRequest:
    """The request that a task asks for. Raises `RequestError`. `min_keep` has no counterpart."""
    if isinstance(task, ChatInferenceTask):
        if len(task.messages) > MAX_MESSAGES:
            raise InvalidRequest(f"A chat has at most {MAX_MESSAGES} messages", param="messages")
        messages = [{"role": one.role, "content": one.content} for one in task.messages]
        given = {"model": task.model, "messages": messages}
        chat = _checked(given | _sampling(task), ChatFields)
        return accepted(front, new_request_id(), chat, asked_of(front, chat), {})
    fields = _checked(_sampling(task), GenerationFields)
    limit = validation.max_tokens(fields, None, None)
    asked = Asked((TextPrompt(task.prompt),), limit)
    return accepted(front, new_request_id(), fields, asked, {})


def _sampling(task: Task) -> dict[str, float | int]:
    given = {
        "max_tokens": task.max_tokens,
        "temperature": task.temperature,
        "top_k": task.top_k,
        "top_p": task.top_p,
        "repeat_penalty": task.repeat_penalty,
        "repeat_last_n": task.repeat_last_n,
    }
    for name, value in given.items():
        if not math.isfinite(value):
            raise InvalidRequest(f"{name} is not a number", param=name)
    return given


def _checked(given: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as err:
        raise InvalidRequest(f"The task is not valid: {err}") from err
