"""A client's request with one value replaced is translated or refused, and is no error of ours."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gpufc.errors import RequestError
from supervisor.http.anthropic.fields import MessagesBody, chat_fields
from supervisor.http.edge.values import decode
from supervisor.http.generation.constraints import constraint_of
from supervisor.http.generation.history import history
from supervisor.http.generation.tools import offered
from tests.supervisor.http.anthropic.test_client_requests import CLIENTS, request

BODIES = [request(name)["body"] for name in CLIENTS]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "content", "name", "a"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container in a document with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


@given(st.sampled_from(BODIES), st.integers(0, 10_000), values)
def test_a_request_with_a_value_replaced_is_translated_or_refused(
    body: dict[str, Any], at: int, value: Any
) -> None:
    mutated = deepcopy(body)
    found = list(places(mutated))
    container, key = found[at % len(found)]
    container[key] = value
    try:
        fields = chat_fields(decode(json.dumps(mutated).encode(), MessagesBody))
        assert history(fields.messages)
        offered(fields.tools, fields.tool_choice)
        constraint_of(fields)
    except (RequestError, msgspec.ValidationError):
        pass
