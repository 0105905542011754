"""The outcome of one request, as its client saw it."""

from enum import StrEnum

from msgspec import Struct


class Failure(StrEnum):
    """Why a request failed."""

    UNREACHABLE = "unreachable"
    """No connection, or a connection that broke before the headers."""
    REFUSED = "refused"
    """An HTTP status other than 200."""
    ERROR_EVENT = "error event"
    """The stream reported an error."""
    CUT = "cut off"
    """The stream ended without `[DONE]`."""
    SILENT = "silent"
    """Silence for longer than the client waits."""
    UNFINISHED = "unfinished"
    """The benchmark's own time had ended."""


class Outcome(Struct, kw_only=True):
    """A request's outcome. Times are seconds of one monotonic clock; `text_at` has one for each
    chunk with text. The client writes it while the request runs; it is read afterwards.

    `output_tokens` is the server's count, or the number of chunks if the server sent no `usage`.
    """

    conversation: int
    turn: int
    asked_tokens: int
    began_at: float
    ended_at: float = 0.0
    text_at: list[float] = []
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    counted_by_server: bool = False
    failure: Failure | None = None
    detail: str = ""
    text: str = ""
