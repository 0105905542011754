"""All requests of all dialects, by name."""

from types import ModuleType

from tests.clients.requests import (
    anthropic_messages,
    embeddings,
    llama_server,
    ollama_api,
    openai_chat,
    openai_completions,
    openai_responses,
)
from tests.clients.requests.request import Request


def _named(*modules: ModuleType) -> dict[str, Request]:
    """All requests by their dialect and client."""
    found: dict[str, Request] = {}
    for module in modules:
        for one in module.REQUESTS:
            name = f"{module.__name__.rpartition('.')[2]}: {one.client}"
            assert name not in found, name
            found[name] = one
    return found


ALL = _named(
    anthropic_messages,
    embeddings,
    llama_server,
    ollama_api,
    openai_chat,
    openai_completions,
    openai_responses,
)
