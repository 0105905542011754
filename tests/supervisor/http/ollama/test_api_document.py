"""Ollama's page says what its structs say: routes, fields, options, figures, words."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct, structs

import supervisor.http.ollama
from gpufc.protocol import FinishReason
from supervisor.answers.parts import Ended
from supervisor.http.description import group
from supervisor.http.ollama import life
from supervisor.http.ollama.answers import Last, done_reason
from supervisor.http.ollama.chat import ChatBody
from supervisor.http.ollama.completion import GenerateBody
from supervisor.http.ollama.details import capabilities
from supervisor.http.ollama.fields import IGNORED, SHARED, OllamaFields
from supervisor.http.ollama.messages import OllamaMessage
from supervisor.http.routes import ROUTES
from tests.fakes.facts import model_facts

TEXT = (Path(supervisor.http.ollama.__file__).parent / "API.md").read_text()


def rows(header: str) -> Iterator[list[str]]:
    """The rows of the table whose first header cell is this one."""
    (table,) = re.findall(rf"^\| {header} \|.*\n\| ---.*\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    for line in table.splitlines():
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def names(cells: Iterator[str]) -> set[str]:
    return {name for cell in cells for name in re.findall(r"`([^`]*)`", cell)}


def firsts(header: str) -> set[str]:
    return names(row[0] for row in rows(header))


def fields(kind: type[Struct]) -> set[str]:
    return {field.name for field in structs.fields(kind)}


def test_every_route_is_there() -> None:
    paths = {f"{route.method} {route.path}" for route in ROUTES if group(route.path) == "Ollama"}
    assert firsts("route") == paths


@pytest.mark.parametrize(("kind", "route"), [(ChatBody, "chat"), (GenerateBody, "generate")])
def test_every_field_of_a_body_is_there(kind: type[OllamaFields], route: str) -> None:
    documented = names(row[0] for row in rows("field") if row[1] in (route, "both"))
    own = fields(kind) - set(SHARED) | kind.SERVED | {"model", "stream", "logprobs", "top_logprobs"}
    assert documented == own


def test_every_field_of_a_message_is_there() -> None:
    (row,) = (row for row in rows("field") if row[0] == "`messages`")
    assert names(iter(row[2:])) == fields(OllamaMessage)


def test_every_option_is_there() -> None:
    (shared,) = (row for row in rows("option") if "`temperature`" in row[0])
    assert names(iter(shared[:1])) <= set(SHARED)
    assert firsts("option") - set(SHARED) == {*IGNORED, "num_predict"} - set(SHARED)


def test_every_figure_is_there() -> None:
    assert firsts("figure") == {
        name for name in fields(Last) if name.endswith(("_count", "_duration"))
    }


def test_every_reason_of_an_end_is_there() -> None:
    spoken = {done_reason(Ended(reason)) for reason in FinishReason}
    assert firsts("`done_reason`") == spoken | {life.LOADED, life.UNLOADED}


def test_every_capability_is_there() -> None:
    able = model_facts(chat_template="<think><tool_call>", can_infill=True)
    embeds = model_facts(generates=False, embedding_size=8)
    assert firsts("capability") == {*capabilities(able), *capabilities(embeds)}
