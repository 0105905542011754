"""A chat as one internal request: its conversation, its tools and its answer's reading.

`ChatFields` are OpenAI's. Every other chat dialect translates its request into them.
"""

from functools import partial
from typing import Any

import msgspec

from gpufc.chat import ChatPrompt
from gpufc.errors import InvalidRequest
from gpufc.nesting import is_deeper
from supervisor.http.edge.context import Services
from supervisor.http.generation import validation
from supervisor.http.generation.constraints import constraint_of
from supervisor.http.generation.fields import Limit
from supervisor.http.generation.generate import Asked
from supervisor.http.generation.history import Messages, history
from supervisor.http.generation.logprobs import chat_logprobs
from supervisor.http.generation.prediction import Prediction, predicted
from supervisor.http.generation.reading import reading_of
from supervisor.http.generation.thinking import ThinkingFields, thinking_variables
from supervisor.http.generation.tools import OfferedTools, Tool, ToolChoice, offered

MAX_VARIABLES_BYTES = 64 * 1024
RESERVED_VARIABLES = ("messages", "tools", "documents", "add_generation_prompt")
"""The variables of a template that have fields of their own."""


class ChatFields(ThinkingFields, kw_only=True):
    """The fields of a chat request."""

    messages: Messages
    max_completion_tokens: Limit | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    verbosity: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    prediction: Prediction | None = None


def asked_of(front: Services, body: ChatFields) -> Asked:
    """The request that a chat's fields make. Raises `RequestError`."""
    limit = validation.max_tokens(body, body.max_completion_tokens, None)
    tools = offered(body.tools, body.tool_choice)
    model = front.fleet.resolve(body.model)
    reading = reading_of(
        partial(front.dispatcher.facts, model),
        tools,
        parallel=_is_parallel(body, tools),
        constraint=constraint_of(body),
    )
    logprobs = chat_logprobs(body, front.config.limits)
    return Asked(
        (_prompt(body, tools),),
        limit,
        reading,
        tools.headers,
        logprobs,
        predicted=predicted(body.prediction),
    )


async def count(front: Services, fields: ChatFields) -> tuple[int, dict[str, str]]:
    """The tokens of a chat's prompt as the model would get it, and the headers of the answer.
    Raises `RequestError`."""
    asked = asked_of(front, fields)
    (prompt,) = asked.prompts
    model = front.fleet.resolve(fields.model)
    tokens = await front.dispatcher.asking.prepare(model, prompt, reserve=None)
    return len(tokens), asked.headers


def _is_parallel(body: ChatFields, tools: OfferedTools) -> bool:
    """Whether an answer may have several calls. A forced answer has one unless several are asked
    for: a small model would go on calling until its limit."""
    if body.parallel_tool_calls is None:
        return not tools.must_call
    return body.parallel_tool_calls


def _prompt(body: ChatFields, tools: OfferedTools) -> ChatPrompt:
    messages = history(body.messages)
    last = messages[-1]
    is_answer = last.role == "assistant" and not last.tool_calls
    continues = body.continue_final_message
    if continues and not is_answer:
        raise InvalidRequest(
            "continue_final_message needs a last message of the assistant",
            param="continue_final_message",
        )
    if continues is None:
        # a turn that is not asked for would make the model answer itself
        continues = is_answer and not body.add_generation_prompt
    if continues and body.add_generation_prompt:
        raise InvalidRequest(
            "a message cannot be continued in a new turn", param="add_generation_prompt"
        )
    opens = not continues and body.add_generation_prompt is not False
    return ChatPrompt(messages, opens, continues, tools.json, _variables(body))


def _variables(body: ChatFields) -> str:
    """The template's further variables as JSON, empty without any. A template that does not know a
    variable ignores it."""
    found = thinking_variables(body)
    if body.verbosity:
        found["verbosity"] = body.verbosity
    given = body.chat_template_kwargs or {}
    for name in RESERVED_VARIABLES:
        if name in given:
            raise InvalidRequest(
                f"{name} is not one of the template's free variables",
                param=f"chat_template_kwargs.{name}",
            )
    found |= {name: value for name, value in given.items() if value is not None}
    if is_deeper(found):
        raise InvalidRequest("it nests too deeply", param="chat_template_kwargs")
    text = msgspec.json.encode(found).decode() if found else ""
    if len(text) > MAX_VARIABLES_BYTES:
        raise InvalidRequest(
            f"it has at most {MAX_VARIABLES_BYTES} bytes", param="chat_template_kwargs"
        )
    return text
