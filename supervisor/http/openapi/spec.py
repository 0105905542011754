"""The shapes of one route's requests and answers, for the description."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

SERVER_SENT_EVENTS = "text/event-stream"
NDJSON = "application/x-ndjson"


class Spec(Struct, frozen=True, kw_only=True):
    """The types that a route decodes and encodes. `stream` is the content type of a streamed
    answer. `example` is a body that the route answers. A route may be there only to refuse. A
    `partial` answer has only the members that the request names, where it names some."""

    body: Any = None
    answer: Any = None
    stream: str | None = None
    example: Mapping[str, Any] | None = None
    refuses: bool = False
    partial: bool = False


class Described(Struct, frozen=True):
    """One operation of the description. `scope` is empty for a public route."""

    method: str
    path: str
    summary: str
    scope: str
    spec: Spec
    group: str
