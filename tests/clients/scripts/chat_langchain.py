"""LangChain's chat models, as its documentation shows: invoke, stream, tools, a typed answer."""

import json
import sys
from importlib.metadata import version
from typing import Any

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool

url, prompt, tool_prompt, package, *forced = sys.argv[1:]


def chat_model() -> Any:
    match package:
        case "langchain-openai":
            from langchain_openai import ChatOpenAI

            return ChatOpenAI(base_url=f"{url}/v1", api_key="none", model="default")
        case "langchain-anthropic":
            from langchain_anthropic import ChatAnthropic

            return ChatAnthropic(base_url=url, api_key="none", model="claude-x", max_tokens=400)
        case _:
            from langchain_ollama import ChatOllama

            return ChatOllama(base_url=url, model="default", num_predict=400)


called = []


@tool
def lookup(word: str) -> str:
    """Looks a word up."""
    called.append(word)
    return "[[stop@5]]"


def text(message: Any) -> str:
    return message.text if isinstance(message.text, str) else message.text()


model = chat_model()
whole = text(model.invoke(prompt))
streamed = "".join(text(chunk) for chunk in model.stream(prompt))

with_tools = model.bind_tools([lookup])
asked = model.bind_tools([lookup], tool_choice="lookup") if forced else with_tools
messages: list[Any] = [HumanMessage(tool_prompt)]
# a stream's chunks add up to the message that goes back
added = None
for chunk in asked.stream(messages):
    added = chunk if added is None else added + chunk
messages.append(added)
for call in added.tool_calls:
    messages.append(ToolMessage(lookup.invoke(call["args"]), tool_call_id=call["id"]))
final = text(with_tools.invoke(messages))
print(
    json.dumps(
        {
            "versions": {package: version(package)},
            "whole": whole,
            "streamed": streamed,
            "called": called,
            "final": final,
        }
    )
)
