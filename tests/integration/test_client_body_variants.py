"""The requests of public clients, varied: a null is the same as an absent member at every depth,
and the order of members says nothing."""

import asyncio
import copy
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import aiohttp
import pytest

from tests.integration.test_client_bodies import FOLDER, NAMES, SAYS, directed, running
from tests.service import Service

__all__ = ["running"]

VOLATILE = re.compile(
    "id|call_id|item_id|created|created_at|completed_at|expires_at|modified_at|.*_duration|timings"
    "|cached_tokens|cache_.*_input_tokens|input_tokens|prompt_eval_count|prompt_per_second|.*_ms"
)
"""Members that two equal answers do not share."""
REPEATED = {"tools", "text"}
"""Members of a response that repeat the request."""
MEMBERS_OF_DATA = {"properties", "$defs", "arguments", "input", "metadata"}
"""Below these, a null is a value of the client's own."""

SEED: "Path" = ("seed",)
"""Added to every body. Without it, an answer is another one where a constraint leaves a choice."""
AT_ONCE = 8

Path = tuple[str | int, ...]


class Said(NamedTuple):
    """What is compared of an answer. The events of a stream are cut by time, and a refusal of a
    null has words of its own."""

    status: int
    document: Any


class Pair(NamedTuple):
    """The answers to a body whose member at `path` is null, and gone."""

    path: Path
    null: Said
    absent: Said


def given(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())  # type: ignore[no-any-return]


def members(value: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of all members of objects that the service reads, outer ones first."""
    items: Any = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, member in items:
        if isinstance(key, str):
            yield (*path, key)
        if key not in MEMBERS_OF_DATA or isinstance(member, list):
            yield from members(member, (*path, key))


def changed(body: Any, path: Path, *, absent: bool) -> Any:
    """The body whose member at the path is null, or gone."""
    made = copy.deepcopy(body)
    *outer, last = path
    holder = made
    for key in outer:
        holder = holder[key]
    if absent:
        del holder[last]
    else:
        holder[last] = None
    return made


def reversed_members(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: value[key] if key in MEMBERS_OF_DATA else reversed_members(value[key])
            for key in reversed(value)
        }
    return [reversed_members(one) for one in value] if isinstance(value, list) else value


async def answer(session: aiohttp.ClientSession, name: str, body: Any) -> Said:
    request = given(name)
    async with session.request(
        request["method"],
        request["path"],
        data=json.dumps(body),
        headers=request["headers"],
        allow_redirects=False,
    ) as response:
        is_document = response.content_type == "application/json" and response.status == 200
        return Said(response.status, compared(await response.json()) if is_document else None)


def compared(value: Any) -> Any:
    """A document without what differs between equal answers."""
    if isinstance(value, list):
        return [compared(one) for one in value]
    if not isinstance(value, dict):
        return value
    left_out = REPEATED if value.get("object") == "response" else set()
    return {
        key: compared(member)
        for key, member in value.items()
        if key not in left_out and not VOLATILE.fullmatch(key)
    }


async def pair(session: aiohttp.ClientSession, name: str, body: Any, path: Path) -> Pair:
    null = await answer(session, name, changed(body, path, absent=False))
    return Pair(path, null, await answer(session, name, changed(body, path, absent=True)))


def whole(name: str) -> Any:
    """The request's body, told what to say; not as a stream where it has the member."""
    text = SAYS.get(name, "Well, said.")
    body = directed(given(name)["body"], f"[[say:{text}]][[stop@{len(text)}]]")
    return body | {"seed": 1} | ({"stream": False} if "stream" in body else {})


POSTED = [name for name in NAMES if isinstance(given(name)["body"], dict)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in POSTED if name.startswith(("chat", "emb"))])
async def test_a_null_is_the_same_as_an_absent_member(running: Service, name: str) -> None:
    body = whole(name)
    async with aiohttp.ClientSession(
        running.url, connector=aiohttp.TCPConnector(limit=AT_ONCE)
    ) as session:
        found = await asyncio.gather(
            *(pair(session, name, body, path) for path in members(body) if path != SEED)
        )
    different = [one for one in found if one.null != one.absent or one.null.status >= 500]
    assert not different, "\n".join(map(str, different))


@pytest.mark.slow
@pytest.mark.parametrize("name", POSTED)
async def test_the_order_of_members_says_nothing(running: Service, name: str) -> None:
    body = whole(name)
    async with aiohttp.ClientSession(running.url) as session:
        assert await answer(session, name, body) == await answer(
            session, name, reversed_members(body)
        )
