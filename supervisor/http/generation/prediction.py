"""OpenAI's `prediction`: a text that most of the answer is expected to repeat. Pure."""

from msgspec import Struct

from gpufc.errors import InvalidRequest


class PredictedPart(Struct, frozen=True):
    """A part of a prediction. Only text is served."""

    type: str | None = None
    text: str | None = None


class Prediction(Struct, frozen=True):
    """The one type is `content`."""

    type: str | None = None
    content: str | list[PredictedPart] | None = None


def predicted(given: Prediction | None) -> str:
    """The predicted text; empty without any. Raises `InvalidRequest`."""
    if given is None or given.content is None:
        return ""
    if given.type not in (None, "content"):
        raise InvalidRequest(
            f"a prediction of type {given.type[:50]!r} is unknown", param="prediction.type"
        )
    if isinstance(given.content, str):
        return given.content
    return "".join(part.text or "" for part in given.content)
