"""How a restart or a swap gets on, for a person at a terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from gpufc.errors import GpufcError
from supervisor.cli.terminal import Progress

_WORDS = {
    "trying": "the new worker is tried with a short generation",
    "draining": "what runs on the old model ends first",
    "rolling_back": "loading the model before again",
}


class Failed(GpufcError):
    """It came to nothing. `code` is the error's, as contract.md has them."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def show(events: Iterable[Mapping[str, Any]], what: str) -> list[Mapping[str, Any]]:
    """Show progress until the end; returns what the workers that now serve have said last.

    Raises `Failed`. Ctrl-C ends the showing only.
    """
    progress = Progress(what)
    ready: list[Mapping[str, Any]] = []
    try:
        for event in events:
            if event["event"] == "failed":
                raise Failed(event["message"], event["code"])
            if event["event"] == "progress":
                if event["stage"] == "ready":
                    ready.append(event)
                _show(progress, event)
    finally:
        progress.end()
    return ready


def _show(progress: Progress, event: Mapping[str, Any]) -> None:
    stage, fraction = event["stage"], event["fraction"]
    if stage == "loading" and 0 < fraction < 1:
        progress.fraction(fraction)
    elif stage != "ready":
        detail = f" ({event['detail']})" if event["detail"] else ""
        progress.note(_WORDS.get(stage, stage) + detail)
