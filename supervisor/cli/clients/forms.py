"""Each client's configuration for a service."""

import json
from collections.abc import Mapping
from typing import Any

from supervisor.cli.clients.form import (
    Client,
    Configuration,
    JsonFile,
    Served,
    Shown,
    TextFile,
    Variables,
)

OUTPUT_SHARE = 4
"""Clients that split a context get a quarter of it for the answer."""
MOST_OUTPUT = 8192
PATIENCE_MS = 3_600_000
"""For the first token of a long prompt on a slow machine."""


def _output(context: int) -> int:
    return min(context // OUTPUT_SHARE, MOST_OUTPUT)


def _claude_code(served: Served) -> Configuration:
    model = served.model
    return JsonFile(
        ".claude/settings.json",
        {
            "env": {
                "ANTHROPIC_BASE_URL": served.address,
                "ANTHROPIC_AUTH_TOKEN": served.key,
                "ANTHROPIC_MODEL": model,
                # its side calls name these
                "ANTHROPIC_DEFAULT_OPUS_MODEL": model,
                "ANTHROPIC_DEFAULT_SONNET_MODEL": model,
                "ANTHROPIC_DEFAULT_HAIKU_MODEL": model,
                "CLAUDE_CODE_SUBAGENT_MODEL": model,
                # lines that change with each request would keep a prompt from being cached
                "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
                "CLAUDE_CODE_TOTAL_TOKENS_REMINDER": "off",
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                # it gives up after 5 minutes without a token, and pings do not count
                "CLAUDE_STREAM_IDLE_TIMEOUT_MS": str(PATIENCE_MS),
                "API_TIMEOUT_MS": str(PATIENCE_MS),
            }
        },
    )


def _codex(served: Served) -> Configuration:
    # a profile is a file of its own
    text = f"""\
model = {json.dumps(served.model)}
model_provider = "gpufc"
model_context_window = {served.contexts[served.model]}

[model_providers.gpufc]
name = "gpufc"
base_url = {json.dumps(served.openai)}
wire_api = "responses"
stream_idle_timeout_ms = {PATIENCE_MS}
experimental_bearer_token = {json.dumps(served.key)}
"""
    return TextFile(".codex/gpufc.config.toml", text)


def _opencode(served: Served) -> Configuration:
    models = {
        name: {"name": name, "limit": {"context": context, "output": _output(context)}}
        for name, context in served.contexts.items()
    }
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "gpufc",
        "options": {"baseURL": served.openai, "apiKey": served.key},
        "models": models,
    }
    return JsonFile(
        ".config/opencode/opencode.json",
        {
            "$schema": "https://opencode.ai/config.json",
            "model": f"gpufc/{served.model}",
            "provider": {"gpufc": provider},
        },
    )


def _continue(served: Served) -> Configuration:
    # a file without these three is refused; a file that is there has them
    lines = ["name: gpufc", "version: 1.0.0", "schema: v1", "models:"]
    for name, context in served.contexts.items():
        lines += [
            f"  - name: {json.dumps(name)}",
            "    provider: openai",
            f"    model: {json.dumps(name)}",
            f"    apiBase: {json.dumps(served.openai)}",
            f"    apiKey: {json.dumps(served.key)}",
            "    roles: [chat, edit, apply]",
            "    capabilities: [tool_use]",
            "    defaultCompletionOptions:",
            f"      contextLength: {context}",
        ]
    return Shown(".continue/config.yaml", "\n".join(lines) + "\n")


def _zed(served: Served) -> Configuration:
    models = [
        {
            "name": name,
            "display_name": name,
            "max_tokens": context,
            "max_output_tokens": _output(context),
            "capabilities": {
                "tools": True,
                "images": False,
                "parallel_tool_calls": True,
                "prompt_cache_key": False,
            },
        }
        for name, context in served.contexts.items()
    ]
    provider = {"api_url": served.openai, "available_models": models}
    return JsonFile(
        ".config/zed/settings.json",
        {"language_models": {"openai_compatible": {"gpufc": provider}}},
    )


def _aider(served: Served) -> Configuration:
    return Variables(
        {
            "OPENAI_API_BASE": served.openai,
            "OPENAI_API_KEY": served.key,
            "AIDER_MODEL": f"openai/{served.model}",
        }
    )


def _open_webui(served: Served) -> Configuration:
    return Variables({"OPENAI_API_BASE_URL": served.openai, "OPENAI_API_KEY": served.key})


def _copilot(served: Served) -> Configuration:
    models = [
        {
            "id": name,
            "name": name,
            "url": served.openai,
            "toolCalling": True,
            "vision": False,
            # VS Code takes their sum as the context
            "maxInputTokens": context - _output(context),
            "maxOutputTokens": _output(context),
        }
        for name, context in served.contexts.items()
    ]
    entry: dict[str, Any] = {
        "name": "gpufc",
        "vendor": "customendpoint",
        "apiKey": served.key,
        "models": models,
    }
    text = json.dumps([entry], indent=2) + "\n"
    return Shown(".config/Code/User/chatLanguageModels.json", text)


def _copilot_cli(served: Served) -> Configuration:
    context = served.contexts[served.model]
    return Variables(
        {
            "COPILOT_PROVIDER_BASE_URL": served.openai,
            "COPILOT_PROVIDER_API_KEY": served.key,
            "COPILOT_MODEL": served.model,
            "COPILOT_PROVIDER_MAX_PROMPT_TOKENS": str(context - _output(context)),
            "COPILOT_PROVIDER_MAX_OUTPUT_TOKENS": str(_output(context)),
            # no sign-in at GitHub
            "COPILOT_OFFLINE": "true",
        }
    )


def _cline(served: Served) -> Configuration:
    provider = "openai-compatible"
    settings = {
        "provider": provider,
        "apiKey": served.key,
        "model": served.model,
        "baseUrl": served.openai,
    }
    # an entry without a date is passed over
    entry = {"settings": settings, "tokenSource": "manual", "updatedAt": "2000-01-01T00:00:00.000Z"}
    return JsonFile(
        ".cline/data/settings/providers.json",
        {"version": 1, "lastUsedProvider": provider, "providers": {provider: entry}},
    )


def _pi(served: Served) -> Configuration:
    models = [
        {"id": name, "contextWindow": context, "maxTokens": _output(context)}
        for name, context in served.contexts.items()
    ]
    provider = {
        "baseUrl": served.openai,
        "api": "openai-completions",
        "apiKey": served.key,
        "models": models,
    }
    return JsonFile(".pi/agent/models.json", {"providers": {"gpufc": provider}})


def _qwen_code(served: Served) -> Configuration:
    return Variables(
        {
            "OPENAI_BASE_URL": served.openai,
            "OPENAI_API_KEY": served.key,
            "OPENAI_MODEL": served.model,
        }
    )


def _shell(served: Served) -> Configuration:
    return Variables({"OPENAI_BASE_URL": served.openai, "OPENAI_API_KEY": served.key})


def _ollama(served: Served) -> Configuration:
    return Variables({"OLLAMA_HOST": served.address})


CLIENTS: Mapping[str, Client] = {
    "claude-code": Client("Claude Code", _claude_code, ("claude",)),
    "codex": Client("Codex CLI 0.134 or later", _codex, ("codex --profile gpufc",)),
    "opencode": Client("opencode", _opencode, ("opencode",)),
    "continue": Client("Continue", _continue),
    "zed": Client("Zed", _zed, ("GPUFC_API_KEY={key} zed",)),
    "aider": Client("aider", _aider, ("aider",)),
    "open-webui": Client("Open WebUI", _open_webui, ("open-webui serve",)),
    "copilot": Client("Copilot in VS Code", _copilot),
    "copilot-cli": Client("Copilot CLI", _copilot_cli, ("copilot",)),
    "cline": Client("Cline CLI 3 or later", _cline, ("cline",)),
    "pi": Client("pi", _pi, ("pi --provider gpufc",)),
    "qwen-code": Client("Qwen Code", _qwen_code, ("qwen --auth-type openai",)),
    "openai": Client("OpenAI's SDKs and most tools on top of them", _shell),
    "ollama": Client("Ollama's SDKs and tools", _ollama),
}
"""By the name that `connect` takes."""
