"""What clients learn about models: complete lists, abilities in known words, true sizes."""

import asyncio
from datetime import datetime
from typing import Any

import msgspec
import pytest

from supervisor.http.ollama.details import (
    FILE_TYPES,
    amount,
    capabilities,
    details,
    model_info,
    template,
)
from tests.fakes.facts import model_facts
from tests.supervisor.dispatch.fakes import FAILED, MODEL, until
from tests.supervisor.http.conftest import Service, running

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}{{ m.content }}<|im_end|>{% endfor %}"
REASONING = CHATML + "<think></think>"


async def tags(service: Service) -> dict[str, Any]:
    ((tag,),) = (await service.get("/api/tags")).json.values()
    return dict(tag)


async def show(service: Service, **fields: Any) -> dict[str, Any]:
    answer = await service.post("/api/show", fields)
    assert answer.status == 200, answer.body
    return dict(answer.json)


def nothing_is_missing(tag: dict[str, Any]) -> None:
    """As the strictest client reads an entry of the list."""
    for name in ("name", "model", "digest"):
        assert isinstance(tag[name], str)
    assert tag["digest"]
    assert isinstance(tag["size"], int)
    assert datetime.fromisoformat(tag["modified_at"]).tzinfo is not None
    for name in ("parent_model", "format", "family", "parameter_size", "quantization_level"):
        assert isinstance(tag["details"][name], str)
    assert tag["details"]["families"] == [tag["details"]["family"]]


async def test_a_list_is_complete_before_and_after_the_model_is_loaded() -> None:
    async with running() as service:
        nothing_is_missing(await tags(service))
        assert (await service.get("/api/ps")).json == {"models": []}
        service.fleet.start_worker()
        tag = await tags(service)
        nothing_is_missing(tag)
        assert tag["name"] == tag["model"] == f"{MODEL}:latest"
        assert (tag["size"], tag["digest"]) == (4000, "abc123")
        assert tag["details"]["family"] == "fake"


async def test_a_loaded_model_is_in_the_list_of_running_ones(service: Service) -> None:
    ((loaded,),) = (await service.get("/api/ps")).json.values()
    nothing_is_missing(loaded)
    assert (loaded["context_length"], loaded["size_vram"]) == (4096, 0)
    assert datetime.fromisoformat(loaded["expires_at"]) > datetime.now().astimezone()


async def test_lists_and_version_answer_head_too(service: Service) -> None:
    for path in ("/api/tags", "/api/version", "/"):
        async with service.http.head(path) as response:
            assert response.status == 200, path


@pytest.mark.parametrize("least", [(0, 6, 4), (0, 13, 4)])
async def test_the_version_is_one_that_clients_accept(
    service: Service, least: tuple[int, ...]
) -> None:
    version = (await service.get("/api/version")).json["version"]
    assert tuple(map(int, version.split("."))) >= least


async def test_the_root_is_a_sign_of_life_for_a_program_and_a_page_for_a_browser(
    service: Service,
) -> None:
    for accepted, expected in (
        ("application/json", b"Ollama is running"),
        ("text/html,*/*;q=0.8", b"<!doctype html>"),
        ("*/*", b"<!doctype html>"),
    ):
        async with service.http.get("/", headers={"Accept": accepted}) as response:
            assert response.status == 200
            assert (await response.read()).startswith(expected)


@pytest.mark.parametrize("field", ["model", "name"])
async def test_show_has_every_part_that_a_client_reads(service: Service, field: str) -> None:
    shown = await show(service, **{field: MODEL})
    assert {"details", "model_info", "capabilities", "modified_at", "modelfile"} <= set(shown)
    assert shown["parameters"] == "num_ctx 4096"
    architecture = shown["model_info"]["general.architecture"]
    assert shown["model_info"][f"{architecture}.context_length"] == 4096


async def test_show_waits_for_the_first_load_and_fails_with_it() -> None:
    async with running() as service:
        asking = asyncio.create_task(show(service, model=MODEL))
        await until(lambda: service.dispatcher.group(MODEL).questions)
        assert not asking.done()
        service.fleet.start_worker()
        assert (await asking)["capabilities"]
    async with running() as service:
        service.fleet.change(FAILED)
        answer = await service.post("/api/show", {"model": MODEL})
        assert (answer.status, list(answer.json)) == (503, ["error"])


def test_abilities_follow_from_the_chat_template() -> None:
    assert capabilities(model_facts(chat_template=None)) == ["completion"]
    assert capabilities(model_facts(chat_template=CHATML, template_error="bad")) == ["completion"]
    assert capabilities(model_facts(chat_template=CHATML)) == ["completion", "tools"]
    reasoning = model_facts(chat_template=REASONING)
    assert capabilities(reasoning) == ["completion", "tools", "thinking"]
    assert capabilities(model_facts(can_infill=True)) == ["completion", "insert"]
    assert capabilities(model_facts(generates=False, embedding_size=8)) == ["embedding"]
    assert capabilities(model_facts(generates=False)) == []


def test_a_template_names_the_tools_that_the_service_adds() -> None:
    facts = model_facts(chat_template=CHATML)
    assert template(facts, ["completion", "tools"]) == CHATML + "{#- .Tools -#}"
    assert template(facts, ["completion"]) == CHATML
    assert template(model_facts(), ["completion", "insert"]) == "{{ prompt }}{#- .Suffix -#}"


def test_the_served_context_and_the_true_number_of_parameters_go_before_the_header_s() -> None:
    header: dict[str, Any] = {
        "llama.context_length": 131072,
        "llama.block_count": 30,
        "general.basename": "base",
    }
    facts = model_facts(architecture="llama", n_ctx=4096, n_params=7, metadata=header)
    assert model_info(facts, "served") == {
        "general.architecture": "llama",
        "general.basename": "base",
        "general.parameter_count": 7,
        "llama.block_count": 30,
        "llama.context_length": 4096,
    }
    assert model_info(model_facts(), "served")["general.basename"] == "served"


@pytest.mark.parametrize(
    ("n_params", "written"),
    [(7_615_616_512, "7.6B"), (134_515_008, "134.52M"), (42_000, "42K"), (7, "7")],
)
def test_a_number_of_parameters_is_short(n_params: int, written: str) -> None:
    assert amount(n_params) == written


def test_the_quantization_is_named_as_llama_cpp_does() -> None:
    names = {f"LLAMA_FTYPE_MOSTLY_{name}": number for number, name in FILE_TYPES.items()}
    llama_cpp = pytest.importorskip("llama_cpp")
    spelt = {name.replace("MOSTLY_F32", "ALL_F32"): number for name, number in names.items()}
    assert {name: getattr(llama_cpp, name) for name in spelt} == spelt
    assert details(model_facts(metadata={"general.file_type": 3})).quantization_level == "Q4_1"
    for odd in ({}, {"general.file_type": 999}, {"general.file_type": "Q4"}):
        assert details(model_facts(metadata=odd)).quantization_level == "unknown"


async def test_a_pull_of_a_served_model_succeeds_and_of_another_says_what_to_do(
    service: Service,
) -> None:
    answer = await service.post("/api/pull", {"model": MODEL})
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    states = [msgspec.json.decode(line)["status"] for line in answer.body.splitlines()]
    assert states[-1] == "success"
    whole = await service.post("/api/pull", {"name": MODEL, "stream": False})
    assert whole.json == {"status": "success"}
    other = await service.post("/api/pull", {"model": "other"})
    assert other.status == 404
    assert "model 'other' not found" in other.json["error"]
    assert "--model-path" in other.json["error"]


@pytest.mark.parametrize(
    ("method", "verb"),
    [("POST", "create"), ("POST", "copy"), ("POST", "push"), ("DELETE", "delete")],
)
async def test_a_change_of_the_set_of_models_is_refused_for_good(
    service: Service, method: str, verb: str
) -> None:
    async with service.http.request(method, f"/api/{verb}", json={"model": MODEL}) as response:
        assert response.status == 501
        assert response.headers["x-should-retry"] == "false"
        text = (await response.json())["error"]
        assert f"cannot {verb} models" in text
