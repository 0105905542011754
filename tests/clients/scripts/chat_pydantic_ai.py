"""Pydantic AI's agents over chat, Responses and Messages, as its documentation shows."""

import asyncio
import json
import sys
from importlib.metadata import version
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

url, prompt, tool_prompt, api, *forced = sys.argv[1:]


def chat_model() -> Any:
    if api == "messages":
        return AnthropicModel("claude-x", provider=AnthropicProvider(base_url=url, api_key="none"))
    provider = OpenAIProvider(base_url=f"{url}/v1", api_key="none")
    made = OpenAIResponsesModel if api == "responses" else OpenAIChatModel
    return made("default", provider=provider)


called = []


def lookup(word: str) -> str:
    """Looks a word up."""
    called.append(word)
    return "[[stop@5]]"


async def main() -> None:
    plain = Agent(chat_model())
    whole = (await plain.run(prompt)).output
    async with plain.run_stream(prompt) as result:
        streamed = "".join([piece async for piece in result.stream_text(delta=True)])
    final = (await Agent(chat_model(), tools=[lookup]).run(tool_prompt)).output
    print(
        json.dumps(
            {
                "versions": {"pydantic-ai": version("pydantic-ai-slim")},
                "whole": whole,
                "streamed": streamed,
                "called": called,
                "final": final,
            }
        )
    )


asyncio.run(main())
