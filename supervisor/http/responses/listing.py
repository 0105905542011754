"""Lists of items, in pages and in OpenAI's form. Pure."""

from typing import Any

import msgspec

from gpufc.errors import InvalidRequest
from supervisor.http.responses.fields import Item

MAX_LISTED = 100
"""Items in one list, as OpenAI has it."""
DEFAULT_LISTED = 20


def page_of(items: list[Item], query: dict[str, str]) -> dict[str, Any]:
    """One page of a list of items, as `limit`, `order` and `after` ask. Raises `InvalidRequest`."""
    limit, order, after = query.get("limit"), query.get("order", "desc"), query.get("after")
    if order not in ("asc", "desc"):
        raise InvalidRequest("order is asc or desc", param="order")
    if limit is not None and not (limit.isdecimal() and 1 <= int(limit[:9]) <= MAX_LISTED):
        raise InvalidRequest(f"limit is 1 to {MAX_LISTED}", param="limit")
    ordered = items if order == "asc" else items[::-1]
    ids = [item.id for item in ordered]
    if after is not None and after not in ids:
        raise InvalidRequest("There is no such item in the list", param="after")
    start = 0 if after is None else ids.index(after) + 1
    page = ordered[start : start + int(limit or DEFAULT_LISTED)]
    return {
        "object": "list",
        "data": [listed(item) for item in page],
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
        "has_more": start + len(page) < len(ordered),
    }


def listed(item: Item) -> dict[str, Any]:
    """An item of an input as OpenAI lists it: a message's content is a list of parts."""
    found: dict[str, Any] = {"type": item.kind, "status": "completed"}
    found |= msgspec.to_builtins(item)
    if item.kind == "message":
        found["content"] = _parts(item)
    return found


def _parts(item: Item) -> list[Any]:
    is_answer = item.role == "assistant"
    kind = "output_text" if is_answer else "input_text"
    given = item.content if isinstance(item.content, list) else [item.content or ""]
    parts: list[Any] = [
        {"type": kind, "text": one} if isinstance(one, str) else one for one in given
    ]
    if not is_answer:
        return parts
    return [{"annotations": [], **part} if isinstance(part, dict) else part for part in parts]
