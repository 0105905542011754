"""Chat completions."""

from typing import Any

from tests.clients.requests.chat_answers import calls, fits, may_call, says, skipped
from tests.clients.requests.request import JSON, Check, Request, is_refused

PATH = "/v1/chat/completions"


def tool(name: str, parameters: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    described = {"name": name, "description": f"Does {name}", **more}
    if parameters is not None:
        described["parameters"] = parameters
    return {"type": "function", "function": described}


def objects(*required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required) or list(properties),
        "additionalProperties": False,
    }


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def user(text: str = "Hello") -> dict[str, Any]:
    return {"role": "user", "content": text}


def called(own_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {
        "id": own_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


TEXT = {"type": "string", "maxLength": 12}
WEATHER = objects(city=TEXT, unit={"type": "string", "enum": ["celsius", "fahrenheit"]})
OPENAI_PYTHON = JSON | {"User-Agent": "OpenAI/Python 2.0.0", "X-Stainless-Lang": "python"}
STEP = {
    "$defs": {
        "Step": objects(explanation=TEXT, output={"anyOf": [TEXT, {"type": "null"}]}),
    },
    **objects(
        steps={"items": {"$ref": "#/$defs/Step"}, "type": "array", "maxItems": 2},
        final_answer=TEXT | {"title": "Final Answer"},
    ),
    "title": "Reasoning",
}
NO_ARGUMENTS = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def strict(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema} | more}


def request(client: str, needs: Check, **body: Any) -> Request:
    """A chat that is sent whole and as a stream."""
    given = {"model": "default", "messages": [user()], "max_tokens": 48} | body
    given = {key: value for key, value in given.items() if value is not ...}
    return Request(client, PATH, given, needs, headers=OPENAI_PYTHON, streams=True)


def refused(client: str, param: str, code: str = "invalid_value", **body: Any) -> Request:
    given = {"model": "default", "messages": [user()], "max_tokens": 8} | body
    return Request(client, PATH, given, is_refused(param, code), 400, OPENAI_PYTHON)


PARTS = [
    {"type": "text", "text": "Edit ", "cache_control": {"type": "ephemeral"}},
    {"type": "text", "text": "a.c"},
]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
HISTORY = [
    {"role": "system", "content": "Be brief."},
    user("The weather in Bern?"),
    {
        "role": "assistant",
        "content": " ",
        "reasoning_content": "I need a tool.",
        "tool_calls": [called("c1", "get_weather", '{"city": "Bern"}')],
    },
    {"role": "tool", "tool_call_id": "c1", "name": "get_weather", "content": "rain"},
]

REQUESTS = [
    request("openai-python parse", fits(STEP), response_format=strict(STEP, strict=True),
            max_tokens=160),
    request(
        "copilot",
        may_call,
        max_tokens=...,
        max_completion_tokens=32,
        messages=[
            {"role": "system", "content": [{"type": "text", "text": "You are an editor."}],
             "copilot_cache_control": {"type": "ephemeral"}},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ],
        temperature=0.1,
        top_p=1,
        n=1,
        tools=[tool("list_dir", {"type": "object", "properties": {}})],
        thinking_budget=None,
    ),
    request(
        "continue",
        may_call,
        messages=HISTORY,
        tools=[tool("get_weather", WEATHER)],
        parallel_tool_calls=False,
        stop=["<|fim|>", "\n\n\n", "/src/", "#- coding: utf-8", "```", "<|end|>"],
    ),
    request(
        "zed",
        may_call,
        max_tokens=...,
        max_completion_tokens=40,
        messages=[
            user(),
            {"role": "assistant", "content": None, "reasoning_content": "Hm.",
             "tool_calls": [called("1", "noop", "")]},
            {"role": "tool", "content": [{"type": "text", "text": "done"}], "tool_call_id": "1"},
        ],
        stop=[],
        temperature=1.0,
        tool_choice="auto",
        parallel_tool_calls=False,
        tools=[tool("noop", {"type": "object", "properties": {}}) | {"strict": None}],
        prompt_cache_key="thread",
        reasoning_effort="medium",
    ),
    request("ai sdk generateObject", fits(WEATHER), max_tokens=80,
            response_format=strict(WEATHER | {"$schema": "http://json-schema.org/draft-07/schema#"},
                                   name="response", strict=True, description="d")),
    request("ai sdk tool", calls("weather"), tool_choice=named("weather"), max_tokens=80,
            tools=[tool("weather", WEATHER), tool("other")]),
    request(
        "langchain-openai with_structured_output(method=function_calling)",
        calls("Joke"),
        max_tokens=...,
        max_completion_tokens=160,
        parallel_tool_calls=False,
        tool_choice=named("Joke"),
        tools=[tool("Joke", objects("setup", setup=TEXT, rating={
            "anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}))],
    ),
    request("langchain-openai bind_tools(tool_choice=any)", calls("add", "multiply"),
            tool_choice="required", max_tokens=120,
            tools=[tool(name, objects(a={"type": "integer"}, b={"type": "integer"}))
                   for name in ("add", "multiply")]),
    request("instructor JSON_SCHEMA", fits(WEATHER), max_tokens=80,
            response_format={"type": "json_object", "schema": WEATHER}),
    request("instructor JSON", fits(), response_format={"type": "json_object"}),
    request("instructor PARALLEL_TOOLS", may_call, tools=[tool("A", WEATHER), tool("B", WEATHER)],
            tool_choice="auto"),
    request(
        "agents sdk with handoffs",
        may_call,
        tools=[tool("transfer_to_spanish", NO_ARGUMENTS, strict=True)],
        store=True,
        metadata={"workflow": "w"},
        verbosity="low",
        top_p=None,
        parallel_tool_calls=None,
        reasoning_effort=None,
        extra_args={"a": 1},
    ),
    request("aider functions", calls("write_file"), temperature=0, max_tokens=160,
            tools=[tool("write_file", objects(path=TEXT, content=TEXT))],
            tool_choice=named("write_file")),
    request(
        "openai-python older functions",
        may_call,
        messages=[
            user("2 + 2?"),
            {"role": "assistant", "content": None,
             "function_call": {"name": "add", "arguments": '{"a": 2, "b": 2}'}},
            {"role": "function", "name": "add", "content": "4"},
        ],
        functions=[{"name": "add", "parameters": objects(a={"type": "integer"})}],
        function_call="auto",
    ),
    request("extended openai conversation", may_call, functions=[
        {"name": "turn_on", "description": "d", "parameters": {"type": "object", "properties": {}}}
    ], user="u"),
    request("llama-index", may_call, messages=[
        user(), {"role": "assistant", "content": "", "tool_calls": [called("x", "f", "{}")]},
        {"role": "tool", "content": "ok", "tool_call_id": "x"}, user("And now?"),
    ], tools=[tool("f", {"type": "object", "properties": {"a": {}}})], tool_choice="auto",
       parallel_tool_calls=True, max_retries=2),
    request("litellm", says(), user=None, functions=None, function_call=None, tools=None,
            logit_bias={}, extra_headers={}, metadata={"a": [1]}, seed=7, presence_penalty=0.0),
    request("cline", says(), messages=[
        {"role": "system", "content": "S"}, {"role": "user", "content": PARTS}], temperature=0),
    request("open webui title", says(), max_tokens=..., max_completion_tokens=20, metadata={
        "task": "title_generation", "chat_id": "c"}, chat_id="c", session_id="s",
        features={"web_search": False}, variables={"{{USER_NAME}}": "x"}, params={},
        background_tasks={"title_generation": True}, model_item={"id": "m"}, files=[]),
    request("librechat", says(), user="u", top_p=1, presence_penalty=0, frequency_penalty=0,
            stop=[], stream_options=None),
    request("n8n", says(), n=1, temperature=0.7, frequency_penalty=None, timeout=60000,
            max_tokens=16.0, top_p=1.0, max_retries=2),
    request("openai-python many choices", says(3), n=3, seed=1, stop=["\n\n"], max_tokens=8),
    request("openai-python logprobs", says(), logprobs=True, top_logprobs=5, max_tokens=6),
    request("langchain logprobs without top", says(), logprobs=True, max_tokens=6),
    request("openai-node seed -1", says(), seed=-1, max_tokens=-1, stop="\n"),
    request("openai-python allowed_tools", calls("b", most=1), max_tokens=80, tool_choice={
        "type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named("b")]}},
        tools=[tool("a", WEATHER), tool("b", WEATHER)]),
    request("openai-python parallel calls", calls("now", "date", most=64), tool_choice="required",
            parallel_tool_calls=True, max_tokens=200, tools=[tool("now"), tool("date")]),
    request("tools without a choice of any", says(), tools=[tool("now")], tool_choice="none"),
    request("auto without tools", says(), tools=[], tool_choice="auto", parallel_tool_calls=True),
    request("deepseek prefix", says(), messages=[
        user("Count."), {"role": "assistant", "content": "1, 2,", "prefix": True}]),
    request("only a system message", says(), messages=[{"role": "system", "content": "Say hi."}]),
    request("last message is the system's", says(), messages=[
        user(), {"role": "assistant", "content": "Hi"}, {"role": "system", "content": "Go on."}]),
    request("empty contents", says(), messages=[
        {"role": "system", "content": ""}, {"role": "user", "content": []},
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}, user("?")]),
    request("names and odd roles", says(), messages=[
        {"role": "developer", "content": "D", "name": "dev"}, user() | {"name": "Ann Lee"},
        user("again")]),
    request("cut arguments in the history", may_call, messages=[
        user(), {"role": "assistant", "tool_calls": [called("1", "f", '{"a": "cut')]},
        {"role": "tool", "tool_call_id": "1", "content": None}], tools=[tool("f")]),
    request("results without their calls", may_call, messages=[
        user(), {"role": "tool", "tool_call_id": "gone", "content": "x"}, user("?")]),
    request("refusal in the history", says(), messages=[
        user(), {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        user("?")]),
    request("roo code mcp", may_call, parallel_tool_calls=True, tools=[
        tool("mcp--github--search", {"type": "object", "properties": {"q": {"type": "string"}}},
             strict=False),
        tool("read_file", objects(path=TEXT, line_ranges={"type": ["array", "null"], "items": {
            "type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}}),
            strict=True)]),
    request("openai-python hosted tools", skipped("web_search"),
            tools=[{"type": "web_search"}, tool("f")]),
    request("vllm guided_choice", says(), guided_choice=["yes", "no"]),
    request("vllm guided_json", fits(WEATHER), guided_json=WEATHER, max_tokens=80),
    request("vllm structured_outputs", fits(WEATHER), structured_outputs={"json": WEATHER},
            max_tokens=80),
    request("vllm extra body", says(), top_k=20, min_p=0, repetition_penalty=1.05,
            chat_template_kwargs={"enable_thinking": False}, skip_special_tokens=True,
            add_generation_prompt=True, continue_final_message=False, include_reasoning=True),
    request("sglang ebnf", says(), ebnf='root ::= "yes" | "no"'),
    request("llama-server grammar", says(), grammar='root ::= [a-z]+ " " [0-9]+', max_tokens=10),
    request("llama-server json_schema", fits(WEATHER), json_schema=WEATHER, max_tokens=80,
            cache_prompt=True, id_slot=-1, timings_per_token=False, samplers=["top_k", "min_p"]),
    request("qwen enable_thinking", says(), enable_thinking=True, thinking_budget=100),
    request("qwen without thinking", says(), enable_thinking=False),
    request("glm, kimi and deepseek thinking", says(), thinking={"type": "disabled"}),
    request("openrouter reasoning", says(), reasoning={"effort": "low", "exclude": False},
            provider={"order": ["a"]}, transforms=[], usage={"include": True}, plugins=[]),
    request("mistral any", calls("now"), tool_choice="any", tools=[tool("now")],
            safe_prompt=False, parallel_tool_calls=False),
    request("tgi regex", says(), response_format={"type": "regex", "value": "[a-c]{3}"}),
    request("tgi json", fits(WEATHER), max_tokens=80,
            response_format={"type": "json", "value": WEATHER}),
    request("fireworks grammar", says(),
            response_format={"type": "grammar", "grammar": 'root ::= "yes" | "no"'}),
    request("prediction", says(), prediction={"type": "content", "content": [
        {"type": "text", "text": "Hello there"}]}, max_tokens=8),
    request("modalities and moderation", says(), modalities=["text"], service_tier="flex",
            safety_identifier="s", prompt_cache_retention="24h", audio=None),
    request("copilot cli", may_call, messages=[
        {"role": "system", "content": "You are an assistant."},
        user("<current_datetime>2026-01-01T00:00:00Z</current_datetime>\n\nRead a.c")],
        temperature=0, top_p=0.95, frequency_penalty=0, presence_penalty=0, max_tokens=24,
        tools=[tool("view", objects(path=TEXT)), tool("read_bash", NO_ARGUMENTS)]),
    request("qwen code", may_call, max_tokens=24, messages=[
        {"role": "system", "content": "S"}, {"role": "user", "content": PARTS},
        {"role": "assistant", "content": "Got it."}, {"role": "user", "content": PARTS},
        {"role": "assistant", "content": None, "tool_calls": [called("c1", "read_file", "{}")]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "x"}]}],
        tools=[tool("read_file", objects(path=TEXT)), tool("mcp__ide__getDiagnostics")]),
    request("openrouter sdk picture in a result", may_call, messages=[
        user(), {"role": "assistant", "content": "", "tool_calls": [called("c1", "shot", "{}")]},
        {"role": "tool", "tool_call_id": "c1", "content": [PARTS[0], PICTURE]}],
        tools=[tool("shot")]),
    request("langchain-openai blocks of a picture", may_call, messages=[
        user(), {"role": "assistant", "content": [PARTS[1]], "tool_calls": [
            called("c1", "shot", "{}")]},
        {"role": "tool", "tool_call_id": "c1", "content": [
            {"type": "image", "base64": "AA==", "mime_type": "image/png"}]}, user("?")]),
    request("litellm picture behind a result", may_call, messages=[
        user(), {"role": "assistant", "tool_calls": [called("c1", "shot", "{}")]},
        {"role": "tool", "tool_call_id": "c1", "name": "shot", "content": [PARTS[0]]},
        {"role": "user", "content": [PARTS[1], PICTURE]}, user("?")], tools=[tool("shot")]),
    request("openrouter sdk without reasoning", says(), include_reasoning=False,
            reasoning={"effort": "low", "exclude": True}, usage={"include": True},
            plugins=[{"id": "web"}], route="fallback", models=["a", "b"]),
    request("openrouter verbosity and effort", says(), verbosity="high",
            reasoning={"enabled": True, "effort": None}, transforms=["middle-out"]),
    request("open webui follow-ups", says(), max_tokens=..., max_completion_tokens=24,
            metadata={"task": "follow_up_generation"}, temperature=0.1, stop=None),
    request("zed thread summary", says(), temperature=None, stop=[], tool_choice=None, tools=[],
            parallel_tool_calls=None, messages=[user(), {"role": "assistant", "content": "Hi"},
                                                user("Generate a concise 3-7 word title")]),
    request("cline condense", says(), messages=[
        {"role": "system", "content": "S"}, user("a"), {"role": "assistant", "content": "b"},
        {"role": "user", "content": [{"type": "text", "text": "Summarize the conversation."}]}],
        temperature=0, service_tier="priority", store=True, metadata={"a": "b"}),
    request("names with dots", calls("files.read"), tool_choice="required", max_tokens=80,
            tools=[tool("files.read", NO_ARGUMENTS)]),
    request("a function on the tool's own level", calls("f"), max_tokens=80,
            tools=[{"type": "function", "name": "f", "parameters": WEATHER, "strict": None}],
            tool_choice={"type": "function", "name": "f"}),
    request("a tool in anthropic's form", calls("f"), max_tokens=80, tool_choice={"name": "f"},
            tools=[{"name": "f", "description": "d", "input_schema": WEATHER}]),
    request("choices that are objects", may_call, tools=[tool("f")], tool_choice={"type": "auto"}),
    request("none that is an object", says(), tools=[tool("f")], tool_choice={"type": "none"}),
    request("required that is an object", calls("f"), max_tokens=80,
            tools=[tool("f", NO_ARGUMENTS)], tool_choice={"type": "required"}),
    request("a custom tool beside a function", skipped("custom"), tools=[
        {"type": "custom", "custom": {"name": "code", "format": {"type": "text"}}}, tool("f")]),
    request("azure and its answer's filters", says(), data_sources=[], enhancements={},
            user_security_context={"end_user_id": "u"}),
    request("empty calls and nulls in the history", says(), messages=[
        user(), {"role": "assistant", "content": "x", "tool_calls": [], "function_call": None,
                 "refusal": None, "audio": None, "annotations": []}, user("?")]),
    refused("picture", "messages[0].content[1].type", messages=[{"role": "user", "content": [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]),
    refused("sound", "messages[0].content[0].type", messages=[{"role": "user", "content": [
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}]),
    refused("file", "messages[0].content[0].type", messages=[{"role": "user", "content": [
        {"type": "file", "file": {"file_id": "f"}}]}]),
    refused("spoken answer", "audio", modalities=["text", "audio"],
            audio={"voice": "alloy", "format": "wav"}),
    refused("custom tool chosen", "tool_choice", tools=[tool("f")],
            tool_choice={"type": "custom", "custom": {"name": "code"}}),
    refused("a picture for an answer", "modalities", modalities=["text", "image"]),
    refused("an earlier spoken answer", "messages[1].audio", messages=[
        user(), {"role": "assistant", "content": None, "audio": {"id": "audio_1"}}, user("?")]),
    refused("bound for reasoning", "reasoning.max_tokens", reasoning={"max_tokens": 2000}),
    refused("search", "web_search_options", web_search_options={}),
    refused("unknown function", "tool_choice", tools=[tool("a")], tool_choice=named("b")),
    refused("required without tools", "tool_choice", tool_choice="required"),
    refused("json_schema without a schema", "response_format.json_schema",
            response_format={"type": "json_schema", "json_schema": {"name": "x"}}),
    refused("structural tag", "response_format.type", response_format={"type": "structural_tag"}),
    refused("temperature out of range", "temperature", temperature=-1),
    refused("too many top logprobs", "top_logprobs", logprobs=True, top_logprobs=99),
    refused("no messages", "messages", messages=[]),
]  # fmt: skip
