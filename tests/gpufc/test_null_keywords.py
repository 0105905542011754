from typing import Any

import pytest

from gpufc.null_keywords import without_null_keywords


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"type": "object", "required": None}, {"type": "object"}),
        ({"anyOf": [{"items": None}, True]}, {"anyOf": [{}, True]}),
        (
            {"properties": {"required": {"enum": None, "const": None}}},
            {"properties": {"required": {"const": None}}},
        ),
        ({"$defs": {"a": {"title": None}}}, {"$defs": {"a": {}}}),
        (
            {"dependencies": {"enum": {"required": None}, "b": ["c"]}},
            {"dependencies": {"enum": {}, "b": ["c"]}},
        ),
        ({"properties": {"a": None}}, {"properties": {"a": None}}),
        ({"properties": None}, {}),
        (True, True),
        (None, None),
    ],
)
def test_a_null_keyword_is_left_out(given: Any, kept: Any) -> None:
    assert without_null_keywords(given) == kept


@pytest.mark.parametrize("key", ["const", "default", "example"])
def test_a_null_is_kept_where_an_instance_is(key: str) -> None:
    for value in (None, [None, {"a": None}], {"required": None}):
        assert without_null_keywords({key: value}) == {key: value}


@pytest.mark.parametrize("key", ["enum", "examples"])
def test_a_null_is_kept_among_instances(key: str) -> None:
    assert without_null_keywords({key: [None, {"a": None}]}) == {key: [None, {"a": None}]}
    assert without_null_keywords({key: None}) == {}
