"""llama-server's page says what its structs say."""

import re
from pathlib import Path

from msgspec import Struct, structs

import supervisor.http.llama_server
from supervisor.http.generation.fields import GenerationFields
from supervisor.http.llama_server.answers import Durations, NativeCompletion, StopType
from supervisor.http.llama_server.completion import InfillBody, NativeBody
from supervisor.http.routes import ROUTES

TEXT = (Path(supervisor.http.llama_server.__file__).parent / "API.md").read_text()


def rows(header: str) -> list[list[str]]:
    (table,) = re.findall(rf"^\| {header} \|.*\n\| ---.*\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def names(text: str) -> set[str]:
    return set(re.findall(r"`([^`]*)`", text))


def fields(kind: type[Struct]) -> set[str]:
    return {field.name for field in structs.fields(kind)}


def test_every_route_is_in_the_table_of_routes() -> None:
    known = {f"{route.method} {route.path}" for route in ROUTES}
    documented = set().union(*(names(row[0]) for row in rows("route")))
    assert len(documented) == 5
    assert documented <= known


def test_every_field_of_its_own_is_there() -> None:
    probabilities = {"n_probs", "post_sampling_probs"}
    for kind, path in ((NativeBody, "`/completion`"), (InfillBody, "`/infill`")):
        own = [row for row in rows("field") if row[1] in (path, "both")]
        documented = set().union(*(names(row[0]) for row in own))
        new = fields(kind) - fields(GenerationFields)
        assert documented == new | kind.SERVED | probabilities


def test_every_part_of_an_answer_is_named() -> None:
    assert fields(NativeCompletion) <= names(TEXT.partition("## Answers")[2])
    documented = set().union(*(names(row[0]) for row in rows("time")))
    assert documented == fields(Durations)


def test_every_type_of_stop_has_its_row() -> None:
    assert [row[0].strip("`") for row in rows("`stop_type`")] == [
        StopType.EOS,
        StopType.WORD,
        StopType.LIMIT,
        StopType.NONE,
    ]
