"""The form of a client's configuration: variables, or a file."""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct


class Served(Struct, frozen=True):
    """The service that a client shall use: its address without a path, and its models.

    `contexts` has the context of each model in tokens, the preferred model first. `key` is
    the API key; a service without keys takes any text.
    """

    address: str
    contexts: Mapping[str, int]
    key: str

    @property
    def model(self) -> str:
        """The model that a client with one model gets."""
        return next(iter(self.contexts))

    @property
    def openai(self) -> str:
        """The base address of clients that speak OpenAI's API."""
        return f"{self.address}/v1"


class Variables(Struct, frozen=True):
    """Environment variables, set in the shell that starts the client."""

    values: Mapping[str, str]


class JsonFile(Struct, frozen=True):
    """Members of a JSON file in the home folder. `members` are merged into it."""

    path: str
    members: Mapping[str, Any]


class TextFile(Struct, frozen=True):
    """A whole file in the home folder that only this service's configuration is in."""

    path: str
    text: str


class Shown(Struct, frozen=True):
    """A part of a file that `connect` does not write: the file holds other settings, in a format
    that a program cannot change without losing comments."""

    path: str
    text: str


Configuration = Variables | JsonFile | TextFile | Shown


class Client(Struct, frozen=True):
    """A client program. `steps` are shown after its configuration: how to start it."""

    title: str
    configure: Callable[[Served], Configuration]
    steps: tuple[str, ...] = ()
