"""What a plugin's author imports: the hooks, and the structs that they get and return.

A plugin is a class, or a module, with any of the functions of `Hooks` under `@hook`. It gets only
the arguments that it names.
"""

import pluggy

from supervisor.plugins.structs import (
    Answer,
    Delta,
    Event,
    Identity,
    Info,
    Message,
    Prompt,
    Request,
    Worker,
)

__all__ = [
    "Answer",
    "Delta",
    "Event",
    "Hooks",
    "Identity",
    "Info",
    "Message",
    "Prompt",
    "Refuse",
    "Request",
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
    """All hooks. Returning None changes nothing. `Refuse` may be raised by the first five."""

    @_spec(firstresult=True)
    def authenticate(self, headers: dict[str, str], address: str) -> Identity | None:
        """Name the principal of a request. With None, the front's own keys decide."""

    @_spec(firstresult=True)
    def before_admission(self, request: Request) -> Request | None:
        """See or change a request before it takes a place in the queue."""

    @_spec(firstresult=True)
    def on_route(self, info: Info, workers: list[Worker]) -> str | None:
        """The name of the worker that should run the request, if it has room then."""

    @_spec(firstresult=True)
    def on_prompt(self, info: Info, text: str) -> str | None:
        """See or change the text of a prompt, as the model gets it."""

    @_spec(firstresult=True)
    def on_delta(self, info: Info, index: int, text: str, final: bool) -> str | Delta | None:
        """See or change text of an answer before the client gets it. `text` is what was held back,
        then what is new. The last call for a choice is `final`, with or without text."""

    @_spec
    def on_finish(self, info: Info, answer: Answer) -> None:
        """A choice has ended. Nothing waits for this hook."""

    @_spec
    def on_event(self, event: Event) -> None:
        """Something has happened to a worker. Nothing waits for this hook."""


NAMES = tuple(name for name, value in vars(Hooks).items() if callable(value) and name[0] != "_")
"""The names of all hooks."""
