"""Requests in the forms that Ollama's clients send are answered as these clients need."""

from typing import Any

import pytest
from ollama import ChatResponse

from gpufc.chat import ChatPrompt
from tests.supervisor.http.conftest import Service, running
from tests.supervisor.http.ollama.conftest import ask, lines, prepared


def said(role: str, content: str | None = None, **more: Any) -> dict[str, Any]:
    return {"role": role, **({} if content is None else {"content": content}), **more}


def called(name: str, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": {"a": 1}}, **more}


def function(name: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "description": "one"}}}
    return {
        "type": "function",
        "function": {"name": name, "description": f"Does {name}", "parameters": schema},
    }


EDITOR_WITH_NULLS = {
    "messages": [
        said("system", "Assist."),
        said("user", "Hi"),
        said("assistant", "", tool_calls=[called("now")], thinking=None),
        said("tool", "noon", tool_name="now"),
        said("assistant", "Noon.", tool_calls=None, thinking=None),
        said("user", "Thanks"),
    ],
    "stream": True,
    "keep_alive": -1,
    "options": {"num_ctx": 4096, "num_predict": None, "stop": [], "temperature": 1, "top_p": None},
    "tools": [],
    "think": None,
}
PYTHON_HISTORY = {
    "messages": [
        said("user", "Add 1"),
        said("assistant", thinking="A tool.", tool_calls=[called("add")]),
        said("tool", "3", tool_name="add"),
    ],
    "tools": [function("add")],
    "think": "low",
}
HOME = {
    "messages": [
        said("system", "Rooms."),
        said("user", "Lights?"),
        said("assistant", "", tool_calls=[called("lamp"), called("lamp")]),
        said("tool", '{"on": true}'),
        said("tool", '{"on": false}'),
    ],
    "tools": [function("lamp")],
    "keep_alive": "300s",
    "options": {"num_ctx": 8192},
    "think": False,
}
CODING_AGENT = {
    "messages": [
        said("user", "Read"),
        said("assistant", "", tool_calls=[called("read", id="call-1", type="function")]),
        said("tool", "file", tool_call_id="call-1", tool_name="read"),
    ],
    "options": {"num_ctx": 65536},
    "tools": [function("read")],
}
LIBRARY = {
    "messages": [
        said("system", "Edit."),
        said("assistant", "", thinking="Hm.", tool_calls=[called("add")]),
        said("tool", "2"),
    ],
    "options": {"num_ctx": 12345.5, "temperature": 0, "think": True, "num_predict": 64},
    "tools": [function("add")],
}
INDEXER = {
    "messages": [said("user", "Hi")],
    "format": "",
    "keep_alive": "5m",
    "options": {"temperature": 0.75, "num_ctx": 3900},
    "stream": True,
}
RESULTS_AS_USER = {"messages": [said("user", "Go"), said("assistant", "Did"), said("user", "[x]")]}
BODIES = {
    "editor with nulls": EDITOR_WITH_NULLS,
    "python history": PYTHON_HISTORY,
    "home": HOME,
    "coding agent": CODING_AGENT,
    "library": LIBRARY,
    "indexer": INDEXER,
    "results as user": RESULTS_AS_USER,
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_client_s_request_is_answered_in_lines_of_full_messages(
    service: Service, name: str
) -> None:
    found = lines(await ask(service, **BODIES[name]))
    for line in found:
        assert isinstance(line["created_at"], str)
        assert (line["message"]["role"], type(line["message"]["content"])) == ("assistant", str)
        ChatResponse.model_validate(line, strict=True)
    counted = [line for line in found if "eval_count" in line or "prompt_eval_count" in line]
    assert counted == [found[-1]]


@pytest.mark.parametrize("name", BODIES)
async def test_a_client_s_request_is_answered_whole(service: Service, name: str) -> None:
    answer = (await ask(service, **(BODIES[name] | {"stream": False}))).json
    assert ChatResponse.model_validate(answer, strict=True).done


BODY = b'{"messages": [{"role": "user", "content": "hi"}], "stream": false}'


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", None])
async def test_a_program_need_not_name_the_type_of_its_body(
    service: Service, kind: str | None
) -> None:
    sent = {} if kind is None else {"Content-Type": kind}
    skipped = ["Content-Type"]
    async with service.http.post(
        "/api/chat", data=BODY, headers=sent, skip_auto_headers=skipped
    ) as response:
        assert response.status == 200, await response.text()


@pytest.mark.parametrize("header", ["Origin", "Sec-Fetch-Site"])
@pytest.mark.parametrize("kind", ["text/plain", None])
async def test_a_browser_has_to_name_it_so_that_no_other_site_can_ask(
    service: Service, kind: str | None, header: str
) -> None:
    sent = {header: "null"} | ({} if kind is None else {"Content-Type": kind})
    async with service.http.post(
        "/api/chat", data=BODY, headers=sent, skip_auto_headers=["Content-Type"]
    ) as response:
        assert response.status == 415
        assert list(await response.json()) == ["error"]


async def test_other_apis_keep_to_the_type(service: Service) -> None:
    sent = {"Content-Type": "text/plain"}
    async with service.http.post("/completion", data=b'{"prompt": "a"}', headers=sent) as response:
        assert response.status == 415


@pytest.mark.parametrize("name", ["editor with nulls", "python history", "home", "library"])
async def test_each_result_in_a_client_s_history_has_the_id_of_a_call_of_its_own(name: str) -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        await ask(service, **BODIES[name])
        prompt = prepared(worker).prompt
    assert isinstance(prompt, ChatPrompt)
    calls = [call.id for turn in prompt.messages for call in turn.tool_calls]
    results = [turn.tool_call_id for turn in prompt.messages if turn.role == "tool"]
    assert calls == results
    assert len(set(calls)) == len(calls)
