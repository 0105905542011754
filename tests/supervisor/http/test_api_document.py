"""`API.md` says what the code does: routes, fields, neutral values, errors, keys."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs
from openai.types import completion_create_params as completion_params
from openai.types.chat import completion_create_params as chat_params

import supervisor.http
from gpufc import errors
from gpufc.config import AdmissionConfig, LimitsConfig, ServerConfig
from gpufc.sampling import SAMPLERS, SamplingFields, SamplingParams, samplers_of
from supervisor.dispatch.request import Scope
from supervisor.http.description import SPECS, group
from supervisor.http.generation.unsupported import FIELDS, NEUTRAL, NotYet
from supervisor.http.llama_server import embeddings as llama_embeddings
from supervisor.http.llama_server.tokens import DetokenizeBody, TokenizeBody
from supervisor.http.ollama import embeddings as ollama_embeddings
from supervisor.http.openai import embeddings as openai_embeddings
from supervisor.http.openai.completions import DEFAULT_MAX_TOKENS, CompletionBody
from supervisor.http.openai.functions import ChatCompletionBody
from supervisor.http.openai.schemas import FinishReason
from supervisor.http.rerank import RerankBody
from supervisor.http.routes import ROUTES
from supervisor.http.service.admin import (
    ModelRequest,
    ReloadRequest,
    RestartRequest,
    SwapRequest,
)

TEXT = (Path(supervisor.http.__file__).parent / "API.md").read_text()

Row = list[str]


def section(heading: str) -> str:
    """A heading's text, up to the next heading."""
    found = re.split(rf"^#+ {re.escape(heading)}\n", TEXT, flags=re.MULTILINE)
    assert len(found) == 2, heading
    return re.split(r"^#+ ", found[1], flags=re.MULTILINE)[0]


def rows(heading: str) -> Iterator[Row]:
    """The rows of a section's tables, headers and rules left out."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not set(line) <= set("| -") and set(below) != set("| -"):
            yield cells


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def fields(kind: type[msgspec.Struct]) -> set[str]:
    return {field.name for field in structs.fields(kind)}


def supported() -> dict[str, Row]:
    return {name: row for row in rows("Supported") for name in names(row[0])}


def refused() -> dict[str, Row]:
    return {name: row for row in rows("Refused unless neutral") for name in names(row[0])}


READ: dict[str, Callable[[str], object]] = {
    "samplers": lambda cell: samplers_of(names(cell)[0]),
    "dry_sequence_breakers": lambda cell: tuple(map(msgspec.json.decode, names(cell))),
}
"""How a default is read that is no number."""


def test_every_route_has_its_scope() -> None:
    documented = {
        (route.split()[0], path): row[1]
        for row in rows("Routes")
        for route in names(row[0])
        for path in [route.split()[1]]
    }
    actual = {
        (route.method, route.path.replace(":.+", "")): route.scope.value
        if route.scope
        else "public"
        for route in ROUTES
    }
    assert documented == actual


def test_every_path_of_an_api_has_its_dialect_and_says_where_it_is_not_supported() -> None:
    paths = {row[0]: {*names(row[1])} for row in rows("Dialects")}
    refused_there = [name for row in rows("Dialects") for name in names(row[2]) if "/" in name]
    of_an_api = {
        route.path.replace(":.+", "")
        for route in ROUTES
        if group(route.path) not in ("Administration", "Service") and route.scope is Scope.GENERATE
    }
    own = {"/v1/requests"}
    of_no_prefix = {route.path for route in ROUTES if group(route.path) == "Service"}
    assert set().union(*paths.values()) - of_no_prefix == of_an_api - own | {"/v1/health"}
    refusing = [path for (_, path), spec in SPECS.items() if spec.refuses]
    assert sorted(refused_there) == sorted(refusing)


def test_every_field_of_a_body_is_supported_or_refused() -> None:
    served = CompletionBody.SERVED | ChatCompletionBody.SERVED
    every = fields(CompletionBody) | fields(ChatCompletionBody)
    assert set(supported()) == (every - set(FIELDS)) | served
    assert set(refused()) == set(FIELDS) - (CompletionBody.SERVED & ChatCompletionBody.SERVED)


def test_the_neutral_values_are_those_that_pass() -> None:
    for name, row in refused().items():
        if name == "best_of":
            continue
        values = tuple(msgspec.json.decode(value) for value in names(row[1]))
        assert values == NEUTRAL.get(name, ()), name


def test_the_defaults_are_those_of_the_sampler() -> None:
    defaults = {field.name: field.default for field in structs.fields(SamplingParams)}
    checked = 0
    for name, row in supported().items():
        if name in defaults and name not in ("seed", "logit_bias", "ignore_eos"):
            assert READ.get(name, float)(row[2]) == defaults[name], name
            checked += 1
    assert checked == len(defaults) - 3
    assert supported()["max_tokens"][2].startswith(f"{DEFAULT_MAX_TOKENS} ")


def test_the_samplers_are_in_llama_cpp_s_order_with_their_letters_and_fields() -> None:
    table = [[names(cell) for cell in row] for row in rows("Samplers")]
    assert samplers_of("".join(row[0][0] for row in table)) == SAMPLERS
    assert samplers_of([row[1][0] for row in table]) == SAMPLERS
    for _, _, of_sampler in table:
        for name in of_sampler:
            assert any(field.startswith(name.rstrip("…")) for field in fields(SamplingFields))


@pytest.mark.parametrize(
    "parameters",
    [
        chat_params.CompletionCreateParamsBase,
        chat_params.CompletionCreateParamsStreaming,
        completion_params.CompletionCreateParamsBase,
        completion_params.CompletionCreateParamsStreaming,
    ],
)
def test_every_parameter_of_openai_s_client_is_in_a_table(parameters: Any) -> None:
    known = {*supported(), *refused(), *names(section("Ignored"))}
    assert set(parameters.__annotations__) - known == set()


def fate(name: str, body: type[NotYet], parameters: Any) -> str:
    """A parameter's word in the table of OpenAI's parameters."""
    if name not in openai_s(parameters):
        return "–"
    if name not in fields(body):
        return "ignored"
    return "served" if name not in FIELDS or name in body.SERVED else "neutral values"


def openai_s(parameters: Any) -> set[str]:
    return {
        *parameters.CompletionCreateParamsBase.__annotations__,
        *parameters.CompletionCreateParamsStreaming.__annotations__,
        *parameters.CompletionCreateParamsNonStreaming.__annotations__,
    }


def test_the_table_of_openai_s_parameters_says_what_becomes_of_each() -> None:
    page = (Path(supervisor.http.__file__).parent / "openai" / "API.md").read_text()
    table = [line for line in page.splitlines() if line.startswith("| `")]
    documented = [[cell.strip() for cell in line.strip("|").split(" | ")][:3] for line in table]
    every = sorted(openai_s(completion_params) | openai_s(chat_params))
    expected = [
        [
            f"`{name}`",
            fate(name, CompletionBody, completion_params),
            fate(name, ChatCompletionBody, chat_params),
        ]
        for name in every
    ]
    assert documented[: len(every)] == expected


def test_an_ignored_field_is_no_field_of_a_body() -> None:
    known = fields(CompletionBody) | fields(ChatCompletionBody)
    assert not set(names(section("Ignored"))) & known


def test_every_error_has_its_row() -> None:
    documented = [(row[0], *names(row[1]), *names(row[2])) for row in rows("Errors")]
    raised = {
        (str(cls.status), cls.kind, cls.code)
        for cls in errors._leaves(errors.RequestError)
        if cls.__module__ == errors.__name__
    }
    assert len(documented) == len(set(documented))
    assert set(documented) == raised


def test_every_finish_reason_has_its_row() -> None:
    documented = [names(row[0])[0] for row in rows("Answers") if row[0][1:-1] in set(FinishReason)]
    assert documented == list(FinishReason)


def test_the_fields_of_the_other_routes_are_all_there() -> None:
    documented: dict[str, set[str]] = {}
    route = ""
    for row in rows("`/tokenize`, `/detokenize`, `/admin`"):
        route = row[0] or route
        documented.setdefault(route, set()).update(names(row[1]))
    assert documented == {
        "`/tokenize`": fields(TokenizeBody),
        "`/detokenize`": fields(DetokenizeBody),
        "`/admin/models/load`, `/admin/models/unload`": fields(ModelRequest),
        "`/admin/restart`": fields(RestartRequest),
        "`/admin/reload`": fields(ReloadRequest),
        "`/admin/swap`": fields(SwapRequest),
    }


def test_the_fields_of_embeddings_and_rankings_are_all_there() -> None:
    documented: dict[str, set[str]] = {}
    route = ""
    for row in rows("Embeddings and reranking"):
        route = row[0] or route
        documented.setdefault(route, set()).update(names(row[1]))
    assert documented == {
        "`/v1/embeddings`": fields(openai_embeddings.EmbeddingBody),
        "`/embedding`, `/embeddings`": fields(llama_embeddings.NativeEmbeddingBody),
        "`/api/embed`": fields(ollama_embeddings.EmbedBody),
        "`/api/embeddings`": fields(ollama_embeddings.EmbeddingsBody),
        "`/v1/rerank`": fields(RerankBody),
    }


def test_every_key_under_limits_is_one_of_the_configuration() -> None:
    keys = {name for row in rows("Limits") for name in names(row[1])}
    assert keys <= fields(LimitsConfig) | fields(AdmissionConfig) | fields(ServerConfig)
    assert fields(LimitsConfig) <= set(re.findall(r"`(\w+)`", TEXT))
