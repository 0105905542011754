"""Texts with many values are decoded in steps as they are decoded at once."""

import json
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor.http.anthropic.fields import MessagesBody
from supervisor.http.edge import body, many_values
from supervisor.http.edge.body import Weighed
from supervisor.http.edge.many_values import LEAST_BYTES, MOST_LEVELS, decode_in_parts
from supervisor.http.edge.values import decode
from supervisor.http.ollama.chat import ChatBody
from supervisor.http.openai.completions import CompletionBody
from supervisor.http.openai.functions import ChatCompletionBody
from supervisor.http.responses.fields import ResponsesFields

MANY = Weighed(0, (), has_many_values=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 60) | st.floats(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=40,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON, st.sampled_from([None, 1]))
def test_every_value_is_the_same(
    monkeypatch: pytest.MonkeyPatch, value: Any, indent: int | None
) -> None:
    monkeypatch.setattr(many_values, "LEAST_BYTES", 8)
    text = json.dumps(value, indent=indent).encode()
    assert decode_in_parts(text, lambda: None) == msgspec.json.decode(text)


PARTS = [{"type": "text", "text": "x" * 20}] * 5
MESSAGE = {"role": "user", "content": PARTS}
BODIES: dict[str, tuple[type, dict[str, object]]] = {
    "prompts of token ids": (CompletionBody, {"prompt": [[12_345] * 2000] * 64}),
    "token ids": (CompletionBody, {"prompt": [12_345] * 20_000}),
    "texts": (CompletionBody, {"prompt": ["text" * 10] * 2000}),
    "messages": (ChatCompletionBody, {"messages": [MESSAGE] * 1000, "max_tokens": 2.0}),
    "blocks": (MessagesBody, {"messages": [MESSAGE | {"content": PARTS * 1000}]}),
    "items": (ResponsesFields, {"input": [MESSAGE] * 1000}),
    "short messages": (ChatBody, {"messages": [{"role": "user", "content": "x"}] * 4000}),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("fault", ["", "cut", "a string", "unknown"])
def test_a_body_is_the_same_and_so_is_its_error(name: str, fault: str) -> None:
    kind, fields = BODIES[name]
    fields = {"model": "m", "max_tokens": 3} | fields
    if fault == "a string":
        fields |= {"max_tokens": "x"}
    if fault == "unknown":
        fields |= {"unknown": [{"a": [1]}] * 10_000}
    text = json.dumps(fields).encode()
    assert len(text) > LEAST_BYTES
    text = text[:-5] if fault == "cut" else text
    expected = outcome(lambda: decode(text, kind))
    assert isinstance(expected, kind) is (fault in ("", "unknown"))
    assert outcome(lambda: body._decode(bytearray(text), kind, MANY)) == expected


def outcome(read: Any) -> Any:
    try:
        return read()
    except msgspec.MsgspecError as err:
        return type(err), str(err)


class Decodes:
    """Stands in for msgspec's JSON. Notes the size of each text by whether values were made of it,
    or the texts of its items."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.split: list[int] = []

    def decode(self, text: Any, *, type: Any = Any) -> Any:
        (self.made if type is Any else self.split).append(memoryview(text).nbytes)
        return msgspec.json.decode(text, type=type)


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Decodes:
    found = Decodes()
    monkeypatch.setattr(many_values, "msgspec", SimpleNamespace(json=found))
    return found


@pytest.mark.parametrize("name", ["prompts of token ids", "messages", "blocks", "items"])
def test_few_values_are_made_between_two_chances_for_others(decodes: Decodes, name: str) -> None:
    text = json.dumps(BODIES[name][1]).encode()
    steps = [0]
    decode_in_parts(text, lambda: steps.append(sum(decodes.made)))
    steps.append(sum(decodes.made))
    assert max(later - earlier for earlier, later in pairwise(steps)) < 2 * LEAST_BYTES
    assert 3 * LEAST_BYTES < steps[-1] <= len(text)


def test_many_small_items_are_read_together(decodes: Decodes) -> None:
    text = json.dumps({"x": [[], *[0] * LEAST_BYTES]}).encode()
    assert decode_in_parts(text, lambda: None) == msgspec.json.decode(text)
    assert len(decodes.made) == 1


def test_members_of_an_object_leave_others_a_chance(decodes: Decodes) -> None:
    text = json.dumps({str(n): "x" * (LEAST_BYTES - 100) for n in range(8)}).encode()
    steps = [0]
    decode_in_parts(text, lambda: steps.append(sum(decodes.made)))
    assert max(later - earlier for earlier, later in pairwise(steps)) < 2 * LEAST_BYTES


@pytest.mark.parametrize(("opening", "closing"), [(b'{"a":', b"}"), (b"[", b"]")])
def test_deep_levels_are_not_read_again_and_again(
    decodes: Decodes, opening: bytes, closing: bytes
) -> None:
    text = opening * 300 + b'"%s"' % (b"x" * 4 * LEAST_BYTES) + closing * 300
    decode_in_parts(text, lambda: None)
    assert sum(decodes.split) <= MOST_LEVELS * len(text)
    assert sum(decodes.made) <= len(text)
