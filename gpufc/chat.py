"""A conversation as a prompt. The front reads it from a request, the worker renders it."""

from msgspec import Struct


class ToolCall(Struct, frozen=True, array_like=True):
    """A call of a function in a conversation's history. `arguments` is the JSON text as sent."""

    id: str
    name: str
    arguments: str


class ChatMessage(Struct, frozen=True, array_like=True, omit_defaults=True):
    """One turn of a conversation, with its content parts joined into one text.

    `tool_calls` belong to an assistant's turn, `tool_call_id` to a tool's.
    """

    role: str
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class ChatPrompt(Struct, frozen=True, array_like=True, tag=True):
    """A conversation, to be rendered by the model's own chat template.

    With `continues`, the answer goes on where the last message, an assistant's, ends. `tools` is a
    JSON array of definitions in the form of Hugging Face's templates, or empty. `variables` is a
    JSON object of further template variables, or empty.
    """

    messages: tuple[ChatMessage, ...]
    add_generation_prompt: bool = True
    continues: bool = False
    tools: str = ""
    variables: str = ""
