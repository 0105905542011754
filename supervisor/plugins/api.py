"""What a plugin's author imports: the hooks, and the structs that they get and return.

A plugin is a class, or a module, with any of the functions of `Hooks` under `@hook`. It gets only
the arguments that it names.
"""

import pluggy

from gpufc.protocol import Batching
from supervisor.plugins.structs import (
    Answer,
    Delta,
    Event,
    Identity,
    Info,
    Load,
    Message,
    Prompt,
    Request,
    Sequence,
    Worker,
)

__all__ = [
    "Answer",
    "Batching",
    "Delta",
    "Event",
    "Hooks",
    "Identity",
    "Info",
    "Load",
    "Message",
    "Prompt",
    "Refuse",
    "Request",
    "Sequence",
    "Worker",
    "hook",
]

PROJECT = "gpufc"

hook = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as a hook."""

_spec = pluggy.HookspecMarker(PROJECT)


class Refuse(Exception):
    """Raised by a hook to refuse the request. The client gets the reason, with status 403."""


class Hooks:
    """All hooks. Returning None changes nothing. `Refuse` may be raised by the first four."""

    @_spec(firstresult=True)
    def authenticate(self, headers: dict[str, str], address: str) -> Identity | None:
        """Name the principal of a request. With None, the front's own keys decide."""

    @_spec(firstresult=True)
    def before_admission(self, request: Request) -> Request | None:
        """See or change a request before it takes a place in the queue."""

    @_spec(firstresult=True)
    def on_prompt(self, info: Info, text: str) -> str | None:
        """See or change the text of a prompt, as the model gets it."""

    @_spec(firstresult=True)
    def on_delta(self, info: Info, index: int, text: str, final: bool) -> str | Delta | None:
        """See or change text of an answer before the client gets it. `text` is what was held back,
        then what is new. The last call for a choice is `final`, with or without text."""

    @_spec(firstresult=True)
    def on_route(
        self, info: Info, sequence: Sequence, workers: list[Worker]
    ) -> str | list[str] | None:
        """The names of workers to try first, the best one first. With None, `routing` decides."""

    @_spec(firstresult=True)
    def on_batch(self, info: Info, sequence: Sequence, load: Load) -> Batching | None:
        """When the sequence is computed, and how much of its prompt in one step."""

    @_spec
    def on_finish(self, info: Info, answer: Answer) -> None:
        """A choice has ended. Nothing waits for this hook."""

    @_spec
    def on_event(self, event: Event) -> None:
        """Something has happened to a worker. Nothing waits for this hook."""


NAMES = tuple(name for name, value in vars(Hooks).items() if callable(value) and name[0] != "_")
"""The names of all hooks."""
