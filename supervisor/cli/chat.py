"""`chat`: a conversation with the served model."""

import sys
from typing import Any

import click

from supervisor.cli.options import runtime_dir as find
from supervisor.cli.options import setting_options


@click.command(
    "chat",
    epilog="Exit codes: 0 fine, 1 the service refused (no such model, prompt too long, …), "
    "2 bad usage, 4 not running.",
)
@click.argument("prompt", required=False)
@click.option("--system", metavar="TEXT", help="system prompt [default: the model's own]")
@click.option("--model", metavar="NAME", help="model to talk to [default: the one served]")
@click.option(
    "--temperature", type=click.FloatRange(0, 100), metavar="X",
    help="0 always takes the likeliest token [default: the service's]",
)  # fmt: skip
@click.option(
    "--max-tokens", type=click.IntRange(1), metavar="N",
    help="longest answer, in tokens [default: as long as the context allows]",
)  # fmt: skip
@setting_options(["runtime_dir"])
def command(
    prompt: str | None,
    system: str | None,
    runtime_dir: str | None,
    **options: Any,
) -> None:
    """Talk to the model of the running front.

    With PROMPT, or with a prompt from a pipe, prints one answer and ends. Otherwise it is a
    conversation: /help lists its commands, Ctrl-C ends an answer, Ctrl-D ends the conversation.

    If the service needs a key, set it in the variable GPUFC_API_KEY.
    """
    from supervisor.cli.chat_client import ChatClient
    from supervisor.cli.chat_session import ChatSession
    from supervisor.control.client import ControlClient, NotRunning

    folder = find(runtime_dir)
    status = ControlClient(folder.control_socket).status()
    addresses = status["front"]["addresses"]
    if not addresses:
        raise NotRunning(f"the front has no address yet; `{folder.command('status')}` shows why")
    given = {name: value for name, value in options.items() if value is not None}
    client = ChatClient(addresses[0], given)
    session = ChatSession(client, sys.stdout, system=system, command=folder.command)
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip()
        if not prompt:
            raise click.UsageError("the pipe held no prompt")
    if prompt is not None:
        session.ask(prompt)
    else:
        models = {row["model"] for row in status["workers"]}
        models |= {row["name"] for row in status.get("models", ())}
        session.converse(options["model"] or ", ".join(sorted(models)))
