"""Answers are of the types of the Open Responses specification too, which requires more fields."""

from typing import Any

import msgspec
import openresponses_types.types as specified
import pytest
from pydantic import BaseModel

from tests.supervisor.http.responses.conftest import Speaker, respond
from tests.supervisor.http.responses.test_answers import FUNCTION, REASONED


def event_types() -> dict[str, type[BaseModel]]:
    """The specified events by their type, which is an enumeration of one value."""
    found: dict[str, type[BaseModel]] = {}
    for name, kind in vars(specified).items():
        if name.endswith("StreamingEvent"):
            (value,) = kind.model_fields["type"].annotation
            found[value.value] = kind
    return found


EVENTS = event_types()


@pytest.mark.parametrize("pieces", [("Hel", "lo"), REASONED, ("<call f>",)], ids=len)
@pytest.mark.parametrize("limit", [None, 1])
async def test_answers_are_as_open_responses_specifies(
    speaking: Speaker, pieces: tuple[str, ...], limit: int | None
) -> None:
    service = speaking(*pieces)
    asked: dict[str, Any] = {"tools": [FUNCTION], "max_output_tokens": limit}
    specified.ResponseResource.model_validate((await respond(service, **asked)).json)
    frames = (await respond(service, stream=True, **asked)).body.split(b"\n\n")[:-1]
    for frame in frames:
        event = msgspec.json.decode(frame.partition(b"data: ")[2])
        EVENTS[event["type"]].model_validate(event)
    assert len(frames) > 5
