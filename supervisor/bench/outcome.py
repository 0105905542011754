"""What became of one request, as its client saw it."""

from enum import StrEnum

from msgspec import Struct


class Failure(StrEnum):
    """Why a request failed."""

    UNREACHABLE = "unreachable"
    """No connection, or it broke before the headers."""
    REFUSED = "refused"
    """An HTTP status other than 200."""
    ERROR_EVENT = "error event"
    """The stream said that it failed."""
    CUT = "cut off"
    """The stream ended without `[DONE]`."""
    SILENT = "silent"
    """Nothing came for as long as a client waits."""
    UNFINISHED = "unfinished"
    """The benchmark's own time was over."""


class Outcome(Struct, kw_only=True):
    """One request. Times are seconds of one monotonic clock; `text_at` has one for each chunk
    with text. Written by the client while it runs, read by everybody afterwards.

    `output_tokens` is the server's count, or that of chunks where it sent no `usage`.
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
