"""A null is the same as an absent member, in every object that a request may hold."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from supervisor.http.description import SPECS

BODIES = {" ".join(route): spec.body for route, spec in SPECS.items() if spec.body is not None}

RULES = "CanaryRules"
"""The rules of a canary are the configuration's, too, whose file format has no null."""


def objects(kind: Any, seen: set[Any]) -> Iterator[inspect.StructType]:
    """The structs that a type holds, at every depth."""
    match kind:
        case inspect.StructType(cls, fields):
            if cls not in seen:
                seen.add(cls)
                yield kind
                for one in fields:
                    yield from objects(one.type, seen)
        case inspect.UnionType(types):
            for one in types:
                yield from objects(one, seen)
        case inspect.DictType(_, value) | inspect.ListType(value) | inspect.VarTupleType(value):
            yield from objects(value, seen)
        case inspect.TupleType(types):
            for one in types:
                yield from objects(one, seen)
        case inspect.Metadata(inner):
            yield from objects(inner, seen)


def takes_null(kind: Any) -> bool:
    match kind:
        case inspect.NoneType() | inspect.AnyType():
            return True
        case inspect.UnionType(types):
            return any(map(takes_null, types))
        case inspect.Metadata(inner):
            return takes_null(inner)
        case _:
            return False


@pytest.mark.parametrize("route", BODIES)
def test_a_member_that_may_be_absent_may_be_null(route: str) -> None:
    found = [*objects(inspect.type_info(BODIES[route]), set())]
    refused = [
        f"{one.cls.__name__}.{member.name}"
        for one in found
        for member in one.fields
        if one.cls.__name__ != RULES
        if not member.required and not takes_null(member.type)
    ]
    assert refused == []


def test_an_object_within_lists_and_unions_is_found() -> None:
    class Inner(msgspec.Struct):
        a: int = 1

    class Outer(msgspec.Struct):
        some: list[Inner] | None = None

    found = objects(inspect.type_info(Outer), set())
    assert [one.cls for one in found] == [Outer, Inner]
