"""Decodes a JSON text with very many values in steps. Pure.

A decoder holds the interpreter until it has read the whole text, in whatever thread it runs. So a
large array or object is first split into the texts of its items, which makes no values, and each of
them is decoded by itself.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Raw

LEAST_BYTES = 64 * 1024
"""Of an array or object that is split, and of the items that are decoded in one step."""
MOST_LEVELS = 4
"""So deep a body is split: the blocks of a message in a list of messages. Each level reads the text
once more."""

LEAST_ITEM_BYTES = 16
"""Items that are smaller on average are many, and cost more apart than together."""

WALKED_ITEMS = 64 * 1024
"""Items of arrays and objects that are looked at in one step."""

_LOOK_BYTES = 64
_CONTAINERS = (dict, list)
_OBJECT = re.compile(rb"\s*\{")
_NESTED = re.compile(rb"\s*\[\s*[\[{]")
"""An array of arrays or objects. One of plain values is not split: its items are many and small."""


def decode_in_parts(text: Any, between: Callable[[], object], levels: int = MOST_LEVELS) -> Any:
    """The value of a text in bytes, without a type; `between` is called between steps. Raises
    msgspec's errors."""
    beginning = bytes(memoryview(text)[:_LOOK_BYTES])
    if not levels or memoryview(text).nbytes < LEAST_BYTES:
        return msgspec.json.decode(text)
    if _OBJECT.match(beginning):
        fields = msgspec.json.decode(text, type=dict[str, Raw])
        return dict(zip(fields, _items(fields.values(), between, levels - 1), strict=True))
    if not _NESTED.match(beginning):
        return msgspec.json.decode(text)
    parts = msgspec.json.decode(text, type=list[Raw])
    between()
    if memoryview(text).nbytes < LEAST_ITEM_BYTES * len(parts):
        del parts
        return msgspec.json.decode(text)
    return _items(parts, between, levels - 1)


def names_differ(value: Any, n_members: int, between: Callable[[], object]) -> bool:
    """Whether no object of a valid text has two members of one name: its value has all of the
    text's `n_members` then. The walk ends once they are found, and calls `between` between steps.
    """
    found = n_walked = 0
    containers = [value]
    while containers and found < n_members:
        one = containers.pop()
        if isinstance(one, dict):
            found += len(one)
            one = one.values()
        n_walked += len(one) + 1
        if n_walked >= WALKED_ITEMS:
            between()
            n_walked = 0
        containers += [inner for inner in one if isinstance(inner, _CONTAINERS)]
    return found == n_members


def _items(parts: Iterable[Raw], between: Callable[[], object], levels: int) -> list[Any]:
    items = []
    n_bytes = LEAST_BYTES
    for part in parts:
        if n_bytes >= LEAST_BYTES:
            between()
            n_bytes = 0
        items.append(decode_in_parts(part, between, levels))
        n_bytes += memoryview(part).nbytes
    return items
