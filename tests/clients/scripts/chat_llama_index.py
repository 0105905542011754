"""LlamaIndex's models for OpenAI-like services and Ollama, as its documentation shows."""

import json
import sys
from importlib.metadata import version
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool

url, prompt, tool_prompt, package, *forced = sys.argv[1:]


def chat_model() -> Any:
    if package == "llama-index-llms-ollama":
        from llama_index.llms.ollama import Ollama

        return Ollama(
            model="default",
            base_url=url,
            context_window=8192,
            request_timeout=150,
            additional_kwargs={"num_predict": 400},
        )
    from llama_index.llms.openai_like import OpenAILike

    return OpenAILike(
        model="default",
        api_base=f"{url}/v1",
        api_key="none",
        context_window=8192,
        is_chat_model=True,
        is_function_calling_model=True,
    )


called = []


def lookup(word: str) -> str:
    """Looks a word up."""
    called.append(word)
    return "[[stop@5]]"


model, tools = chat_model(), [FunctionTool.from_defaults(lookup)]
messages = [ChatMessage(role="user", content=prompt)]
whole = model.chat(messages).message.content
streamed = "".join(chunk.delta or "" for chunk in model.stream_chat(messages))

messages = [ChatMessage(role="user", content=tool_prompt)]
answer = model.chat_with_tools(tools, chat_history=messages, tool_required=bool(forced))
messages.append(answer.message)
for call in model.get_tool_calls_from_response(answer, error_on_no_tool_call=False):
    result = lookup(**call.tool_kwargs)
    named = {"tool_call_id": call.tool_id, "name": call.tool_name}
    messages.append(ChatMessage(role="tool", content=result, additional_kwargs=named))
final = model.chat_with_tools(tools, chat_history=messages).message.content
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
