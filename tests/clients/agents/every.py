"""The agents, by the name of their program."""

import json
from collections.abc import Callable, Mapping

from tests.clients.agents.agent import Agent, Place
from tests.clients.agents.relay import Demand


def _reads(tool: str, field: str) -> Callable[[Place], Demand]:
    """A tool that takes the file's path."""
    return lambda place: Demand(tool, {field: str(place.note)})


def _runs(tool: str, field: str) -> Callable[[Place], Demand]:
    """A tool that takes a command of a shell."""
    return lambda place: Demand(tool, {field: f"cat {place.note}"})


def _llm_models(place: Place) -> Mapping[str, str]:
    fields = {
        "model_id": "gpufc",
        "model_name": place.model,
        "api_base": f"{place.url}/v1",
        "supports_tools": True,
    }
    return {"llm/extra-openai-models.yaml": json.dumps([fields])}


LLM_FUNCTION = "def read_note(path: str) -> str:\n    return open(path).read()\n"
"""A tool that is given to `llm` on its command line."""

AGENTS: Mapping[str, Agent] = {
    "codex": Agent(
        ("@openai/codex",),
        lambda place: [
            *(place.program("codex"), "exec", "--profile", "gpufc", "--skip-git-repo-check"),
            *("--dangerously-bypass-approvals-and-sandbox", place.task),
        ],
        _runs("exec_command", "cmd"),
        connect="codex",
    ),
    "claude": Agent(
        ("@anthropic-ai/claude-code",),
        lambda place: [place.program("claude"), "-p", place.task, "--allowedTools", "Read"],
        _reads("Read", "file_path"),
        connect="claude-code",
        only=("--tools", "Read"),
    ),
    "opencode": Agent(
        ("opencode-ai",),
        lambda place: [place.program("opencode"), "run", place.task],
        _reads("read", "filePath"),
        connect="opencode",
        environ=lambda _place: {"OPENCODE_DISABLE_MODELS_FETCH": "1"},
    ),
    "cn": Agent(
        ("@continuedev/cli",),
        lambda place: [place.program("cn"), "-p", place.task, "--allow", "Read"],
        _reads("Read", "filepath"),
        connect="continue",
    ),
    "cline": Agent(
        ("cline",),
        lambda place: [place.program("cline"), place.task],
        _reads("read_files", "path"),
        connect="cline",
    ),
    "qwen": Agent(
        ("@qwen-code/qwen-code",),
        lambda place: [
            *(place.node, place.packages / "node_modules/@qwen-code/qwen-code/cli.js"),
            *("--yolo", "--auth-type", "openai", place.task),
        ],
        _reads("read_file", "file_path"),
        connect="qwen-code",
        only=(
            *("--core-tools", "read_file", "--system-prompt", "Use your tool, then answer."),
            *("--exclude-tools", "agent", "ask_user_question", "exit_plan_mode"),
            *("send_message", "skill", "task_stop", "tool_search"),
        ),
    ),
    "copilot": Agent(
        ("@github/copilot",),
        lambda place: [place.program("copilot"), "-p", place.task, "--allow-all-tools"],
        _reads("view", "path"),
        connect="copilot-cli",
        only=("--available-tools", "view"),
    ),
    "pi": Agent(
        ("@mariozechner/pi-coding-agent",),
        lambda place: [
            *(place.program("pi"), "--offline", "--provider", "gpufc", "-p", place.task),
        ],
        _reads("read", "path"),
        connect="pi",
    ),
    "aider": Agent(
        ("aider-chat",),
        lambda place: [
            *(place.program("aider"), "--no-check-update", "--analytics-disable", "--no-pretty"),
            *("--no-git", "--yes-always", "--message", place.task, place.note.name),
        ],
        lambda _place: None,
        connect="aider",
        python=True,
    ),
    "gptme": Agent(
        ("gptme",),
        lambda place: [
            *(place.program("gptme"), "--non-interactive", "--tool-format", "tool"),
            *("--model", f"local/{place.model}", place.task),
        ],
        _runs("shell", "command"),
        connect="openai",
        python=True,
    ),
    "llm": Agent(
        ("llm",),
        lambda place: [
            *(place.program("llm"), "-m", "gpufc", "--functions", LLM_FUNCTION, place.task),
        ],
        _reads("read_note", "path"),
        files=_llm_models,
        environ=lambda place: {
            "LLM_USER_PATH": str(place.home / "llm"),
            "OPENAI_API_KEY": "none",
        },
        python=True,
    ),
    "mini": Agent(
        ("mini-swe-agent",),
        lambda place: [
            *(place.program("mini"), "--yolo", "--exit-immediately"),
            *(
                "-c",
                "mini.yaml",
                "-c",
                "agent.step_limit=2",
                "-c",
                "model.cost_tracking=ignore_errors",
            ),
            *("--model", f"openai/{place.model}", "--task", place.task),
        ],
        _runs("bash", "command"),
        environ=lambda place: {
            "MSWEA_CONFIGURED": "true",
            "OPENAI_API_BASE": f"{place.url}/v1",
            "OPENAI_API_KEY": "none",
        },
        python=True,
    ),
}
