"""Texts with many values are decoded in steps as they are decoded at once."""

import json
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from supervisor.http.anthropic.fields import MessagesBody
from supervisor.http.edge import body, long_strings, many_values
from supervisor.http.edge.body import Weighed
from supervisor.http.edge.body_cost import weigh
from supervisor.http.edge.many_values import (
    LEAST_BYTES,
    MOST_LEVELS,
    decode_in_parts,
    names_differ,
)
from supervisor.http.edge.values import decode
from supervisor.http.ollama.chat import ChatBody
from supervisor.http.openai.completions import CompletionBody
from supervisor.http.openai.functions import ChatCompletionBody
from supervisor.http.responses.fields import ResponsesFields

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
    assert outcome(lambda: in_steps(text, kind)) == expected


def in_steps(text: bytes, kind: Any) -> Any:
    *_, cost = weigh(text)
    weighed = Weighed(0, (), has_many_values=True, n_members=cost.n_members)
    return body._decode(bytearray(text), kind, weighed)


@pytest.mark.parametrize("name", BODIES)
def test_a_body_with_names_of_its_own_is_not_decoded_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, fields = BODIES[name]
    text = json.dumps({"model": "m", "max_tokens": 3} | fields).encode()
    expected = decode(text, kind)
    monkeypatch.delattr(long_strings, "decode")
    assert in_steps(text, kind) == expected


def object_of(members: list[tuple[str, str]]) -> str:
    """An object that may have several members of one name."""
    inside = ", ".join([f'"{name}": {value}' for name, value in members])
    return f"{{{inside}}}"


TEXTS = st.recursive(
    st.sampled_from(["1", "2.0", "1.5", "null", '"x"', '"\\x"', '":"', "{}", "[]"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(st.sampled_from(["n", "\\u006e", "tag", "other"]), inner)).map(
            object_of
        )
    ),
    max_leaves=20,
)


class Inner(Struct, tag_field="tag", tag="x"):
    n: int = 0


class Typed(Struct):
    n: int | Inner | list[int] = 0
    tag: str | None = None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS, st.sampled_from([Any, Typed, Inner, dict[str, Any], list[Typed]]))
def test_members_of_one_name_are_read_as_at_once(
    monkeypatch: pytest.MonkeyPatch, text: str, kind: Any
) -> None:
    """The same value, or the same error."""
    monkeypatch.setattr(many_values, "LEAST_BYTES", 8)
    data = text.encode()
    assert outcome(lambda: in_steps(data, kind)) == outcome(lambda: decode(data, kind))


@pytest.mark.parametrize("n_others", [0, 20_000])
def test_the_last_member_of_a_name_counts_and_each_is_checked(n_others: int) -> None:
    """Large or small. Python's json takes the last one as well, and msgspec checks each by type."""
    others = ", ".join(["[1]"] * n_others)

    def read(*members: str) -> Any:
        inside = ", ".join([*members, f'"unknown": [{others}]'])
        text = f"{{{inside}}}"
        assert n_others == 0 or len(text) > LEAST_BYTES
        return outcome(lambda: in_steps(text.encode(), Typed))

    assert json.loads('{"n": 1, "n": 2}') == msgspec.json.decode(b'{"n": 1, "n": 2}') == {"n": 2}
    assert read('"n": 1', '"n": 2') == read('"n": 1.0', '"n": 2') == Typed(2)
    wrong = "Expected `int | object | array`, got `str` - at `$.n`"
    assert read('"n": "x"', '"n": 2') == (msgspec.ValidationError, wrong)
    assert read('"n": 2', '"n": "x"') == (msgspec.ValidationError, wrong)
    assert read('"n": "x"', '"n": 1.5', '"n": 2') == (msgspec.ValidationError, wrong)
    assert read('"n": 1.5', '"n": 2') == read('"n": 1.5', '"n": "x"', '"n": 2') == Typed(2)
    assert read(r'"tag": "a\x"', '"tag": "b"')[0] is msgspec.DecodeError


class NotWalked(list[Any]):
    def __iter__(self) -> Any:
        raise AssertionError("the walk goes on behind the last member")


def test_the_search_for_members_ends_at_the_last_one() -> None:
    value = {"prompt": NotWalked([1, 2]), "other": [{"a": 1}]}
    assert names_differ(value, 3, lambda: None)
    assert names_differ(NotWalked([1, 2]), 0, lambda: None)
    with pytest.raises(AssertionError, match="goes on"):
        names_differ(value, 4, lambda: None)


def test_the_search_for_members_leaves_others_a_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_values, "WALKED_ITEMS", 10)
    steps: list[None] = []
    assert not names_differ([[[0] * 4] * 8], 1, lambda: steps.append(None))
    assert len(steps) == 5


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
