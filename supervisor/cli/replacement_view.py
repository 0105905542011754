"""Shows the progress of a restart or a swap."""

from collections.abc import Iterable, Mapping
from typing import Any

from gpufc.errors import GpufcError
from supervisor import program
from supervisor.cli.terminal import Progress
from supervisor.cli.welcome import template_note
from supervisor.control.client import NotRunning

_WORDS = {
    "trying": "the new worker is tried with a short generation",
    "canary": "the new model serves a share of the requests",
    "draining": "running requests end on the old model first",
    "stopping": "the old worker ends first, streams wait",
    "rolling_back": "loading the model before again",
}


class Failed(GpufcError):
    """The replacement failed. `code` is the error's code, as in HTTP's error objects."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def show(events: Iterable[Mapping[str, Any]], what: str) -> list[Mapping[str, Any]]:
    """Show progress until the end. Returns each serving worker's last event.

    Raises `Failed`, and `NotRunning` if the front ends before. Ctrl-C stops the showing, not the
    replacement.
    """
    return show_all(events, what)[0]


def show_all(
    events: Iterable[Mapping[str, Any]], what: str
) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """As `show`, with the last event of all."""
    progress = Progress(what)
    ready: dict[str, Mapping[str, Any]] = {}
    try:
        for event in events:
            match event["event"]:
                case "failed":
                    raise Failed(event["message"], event["code"])
                case "done":
                    return list(ready.values()), event
                case "progress" if event["stage"] == "ready":
                    ready[event["worker"]] = event
                case _:
                    _show(progress, event)
    finally:
        progress.end()
    raise NotRunning(
        f"the front ended before the {what} was done; `{program.command('logs')}` may say why"
    )


def template_notes(status: Mapping[str, Any]) -> list[str]:
    """A line for each worker with a model whose chat template cannot be used."""
    notes = ((worker["name"], template_note(worker)) for worker in status["workers"])
    return [f"{name}: {note}" for name, note in notes if note]


def _show(progress: Progress, event: Mapping[str, Any]) -> None:
    stage, fraction = event["stage"], event["fraction"]
    if stage == "loading" and 0 < fraction < 1:
        progress.fraction(fraction)
    else:
        detail = f" ({event['detail']})" if event["detail"] else ""
        progress.note(_WORDS.get(stage, stage) + detail)
