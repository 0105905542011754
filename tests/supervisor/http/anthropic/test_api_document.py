"""Anthropic's page says what its structs say: fields, blocks, reasons."""

import re
from pathlib import Path

import supervisor.http.anthropic
from supervisor.http.anthropic.answer import StopReason
from supervisor.http.anthropic.blocks import PASSED_OVER
from supervisor.http.anthropic.fields import SHARED, THINKS, MessagesBody
from tests.supervisor.http.anthropic.test_requests import IGNORED
from tests.supervisor.http.test_api_document import fields

TEXT = (Path(supervisor.http.anthropic.__file__).parent / "API.md").read_text()


def names(text: str) -> set[str]:
    return set(re.findall(r"`([^`]*)`", text))


def rows(header: str) -> list[list[str]]:
    """The rows of the table whose first header cell is this one."""
    (table,) = re.findall(rf"^\| {header} \|.*\n\| ---.*\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    lines = table.splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_field_has_its_row() -> None:
    documented = [name for row in rows("field") for name in names(row[0])]
    shared = set(SHARED) - MessagesBody.SERVED
    assert fields(MessagesBody) - shared <= set(documented) <= fields(MessagesBody)


def test_ignored_fields_are_named() -> None:
    (paragraph,) = re.findall(r"^Known and ignored: (.*?)\n\n", TEXT, re.MULTILINE | re.DOTALL)
    assert names(paragraph) >= IGNORED
    assert not names(paragraph) & fields(MessagesBody)


def test_every_type_of_thinking_is_named() -> None:
    (row,) = (row for row in rows("field") if row[0] == "`thinking`")
    assert set(THINKS) <= names(row[1])


def test_every_reason_of_an_end_has_its_row() -> None:
    assert [row[0].strip("`") for row in rows("`stop_reason`")] == list(StopReason)


def test_blocks_that_are_passed_over_are_named() -> None:
    (row,) = (row for row in rows("block") if row[1] == "passed over")
    of_server_tools = {kind for kind in PASSED_OVER if kind.endswith("tool_result")}
    assert names(row[0]) == PASSED_OVER - of_server_tools
