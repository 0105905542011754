"""LiteLLM over the APIs of OpenAI, Anthropic and Ollama, as its documentation shows."""

import json
import sys
from importlib.metadata import version

import litellm

url, prompt, tool_prompt, model, *forced = sys.argv[1:]
base = f"{url}/v1" if model.startswith("openai/") else url
options = {"model": model, "api_base": base, "api_key": "none", "max_tokens": 400}
tools = [
    {
        "type": "function",
        "function": {
            "name": "lookup",
            "description": "Looks a word up",
            "parameters": {
                "type": "object",
                "properties": {"word": {"type": "string"}},
                "required": ["word"],
            },
        },
    }
]

messages = [{"role": "user", "content": prompt}]
whole = litellm.completion(messages=messages, **options)
stream = litellm.completion(messages=messages, stream=True, **options)
streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)

messages = [{"role": "user", "content": tool_prompt}]
named = {"tool_choice": {"type": "function", "function": {"name": "lookup"}}} if forced else {}
asked = litellm.completion(messages=messages, tools=tools, **options, **named)
answer = asked.choices[0].message
messages.append(answer)
called = []
for call in answer.tool_calls or []:
    called.append(json.loads(call.function.arguments)["word"])
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "[[stop@5]]"})
final = litellm.completion(messages=messages, tools=tools, **options)
print(
    json.dumps(
        {
            "versions": {"litellm": version("litellm")},
            "whole": whole.choices[0].message.content,
            "streamed": streamed,
            "called": called,
            "final": final.choices[0].message.content,
        }
    )
)
