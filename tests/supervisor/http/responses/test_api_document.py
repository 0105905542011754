"""The dialect's `API.md` says what the code does."""

import re
from pathlib import Path

import supervisor.http.responses
from supervisor.http.generation.fields import GenerationFields
from supervisor.http.responses.fields import ResponsesFields
from supervisor.http.responses.items import CLIENT_CALLS, PART_KEYS, RESULTS
from supervisor.http.routes import ROUTES

TEXT = (Path(supervisor.http.responses.__file__).parent / "API.md").read_text()


def section(heading: str) -> str:
    found = re.split(rf"^## {re.escape(heading)}\n", TEXT, flags=re.MULTILINE)
    assert len(found) == 2, heading
    return found[1].partition("\n## ")[0]


def first_cells(text: str) -> set[str]:
    """The names in the first column of a section's table."""
    cells = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]*)`", cell)}


def test_every_route_has_its_row() -> None:
    actual = {f"{r.method} {r.path}" for r in ROUTES if r.path.startswith("/v1/responses")}
    assert first_cells(TEXT.partition("## Fields")[0]) == actual


def test_every_field_of_its_own_has_its_row() -> None:
    own = set(ResponsesFields.__struct_fields__) - set(GenerationFields.__struct_fields__)
    assert first_cells(section("Fields")) == own


def test_every_item_and_part_is_named() -> None:
    named = set(re.findall(r"`([^`]*)`", section("Items of the input")))
    assert named >= CLIENT_CALLS.keys() | PART_KEYS.keys()
    assert {name.removesuffix("_output") for name in RESULTS} <= named
