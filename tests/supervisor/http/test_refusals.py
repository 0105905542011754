"""Everything that is not answered: the rows of the table of errors, and harmful bodies."""

import asyncio
from functools import reduce
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.supervisor.dispatch.fakes import FAILED, until
from tests.supervisor.http.conftest import Service, running

JSON = {"Content-Type": "application/json"}
DEEP: dict[str, Any] = reduce(lambda inner, _: {"a": inner}, range(70), {})
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_n_sigma": -1.5}, "top_n_sigma"),
        ({"top_n_sigma": "1"}, "top_n_sigma"),
        ({"temperature": 100.1}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": -1}, "min_p"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"seed": 0.5}, "seed"),
        ({"stop": 5}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": "x" * 257}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        (
            {"stream": True, "stream_options": {"continuous_usage_stats": True}},
            "stream_options.continuous_usage_stats",
        ),
        ({"logit_bias": {"": 1}}, "logit_bias"),
        ({"logit_bias": {"x" * 257: 1}}, "logit_bias"),
        ({"logit_bias": [[1000, 1]]}, "logit_bias"),
        ({"logit_bias": [[-1, 1]]}, "logit_bias"),
        ({"logit_bias": {"1000": 1}}, "logit_bias"),
        ({"logit_bias": {str(i): 1 for i in range(1001)}}, "logit_bias"),
        ({"model": 5}, "model"),
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [[1, "a"]]}, "prompt[0][1]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"echo": 1}, "echo"),
        ({"echo": True, "suffix": "x"}, "echo"),
        ({"best_of": 0}, "best_of"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 9}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"suffix": 1}, "suffix"),
        ({"prompt": [1, 2], "suffix": "x"}, "suffix"),
        ({"min_tokens": 6, "max_tokens": 5}, "min_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"mirostat": 3}, "mirostat"),
        ({"mirostat_tau": -1}, "mirostat_tau"),
        ({"dry_multiplier": -0.8}, "dry_multiplier"),
        ({"dry_sequence_breakers": "x"}, "dry_sequence_breakers"),
        ({"dry_sequence_breakers": '["x", 1]'}, "dry_sequence_breakers"),
        ({"dry_sequence_breakers": ["x"] * 33}, "dry_sequence_breakers"),
        ({"xtc_probability": 1.5}, "xtc_probability"),
        ({"samplers": ["top_k", "infill"]}, "samplers"),
        ({"samplers": "kq"}, "samplers"),
        ({"samplers": "k" * 33}, "samplers"),
        ({"n_probs": 21}, "n_probs"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"regex": "a", "guided_choice": ["b"]}, "guided_choice"),
        ({"structured_outputs": {"structural_tag": {}}}, "structured_outputs.structural_tag"),
        ({"guided_choice": [1]}, "guided_choice[0]"),
    ],
)
async def test_a_bad_field_is_a_400_that_names_it(
    service: Service, fields: dict[str, Any], param: str
) -> None:
    answer = await service.complete(**fields)
    assert answer.status == 400, answer.body
    assert answer.error["type"] == "invalid_request_error"
    assert (answer.error["code"], answer.error["param"]) == ("invalid_value", param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
            "messages[0].tool_calls[0].function",
        ),
        ({"messages": [{"role": "user", "images": ["x"]}]}, "messages[0].images"),
        ({"messages": [{"role": "assistant", "audio": {"id": "x"}}]}, "messages[0].audio"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tools": [{"function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [{"function": {"name": "f", "parameters": DEEP}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required"}}},
            "tool_choice",
        ),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools"),
        ({"chat_template_kwargs": DEEP}, "chat_template_kwargs"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"functions": [{}]}, "functions[0].name"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"suffix": "x"}, "suffix"),
        ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"audio": {}}, "audio"),
        ({"max_completion_tokens": "x"}, "max_completion_tokens"),
    ],
)
async def test_a_bad_chat_field_is_a_400_that_names_it(
    service: Service, fields: dict[str, Any], param: str
) -> None:
    answer = await service.chat(**fields)
    assert answer.status == 400, answer.body
    assert answer.error["param"] == param


async def test_neutral_values_unknown_fields_and_nulls_pass(service: Service) -> None:
    harmless = {
        "user": "me",
        "metadata": {},
        "store": False,
        "service_tier": "auto",
        "parallel_tool_calls": True,
        "prediction": {"type": "content", "content": "x"},
        "verbosity": "low",
        "reasoning_effort": "high",
        "repetition_penalty": 1.3,
        "mirostat_mode": 0,
        "stop_token_ids": [],
        "skip_special_tokens": True,
        "options": {},
        "format": "",
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "logprobs": False,
        "top_logprobs": 0,
        "n_probs": 0,
        "post_sampling_probs": False,
        "modalities": ["text"],
        "mirostat": 0,
        "mirostat_tau": 5.0,
        "dry_multiplier": 0.0,
        "xtc_probability": 0,
        "xtc_threshold": 0.1,
        "top_n_sigma": -1.0,
        "grammar": None,
        "stop": None,
        "temperature": None,
        "brand_new": {"x": [1]},
    }
    assert (await service.chat(**harmless)).status == 200
    assert (await service.complete(best_of=2, n=2, echo=False, logprobs=None)).status == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mirostat_mode", 2),
        ("tfs_z", 0.9),
        ("top_a", 0.1),
        ("length_penalty", 1.2),
        ("bad_words", ["x"]),
        ("skip_special_tokens", False),
        ("add_special_tokens", False),
        ("truncate_prompt_tokens", 5),
        ("prompt_logprobs", 0),
        ("logit_bias_type", "tokens"),
        ("documents", [{"title": "x"}]),
        ("return_tokens", True),
        ("format", "json"),
        ("options", {"temperature": 0}),
        ("reasoning_format", "none"),
        ("grammar_lazy", True),
        ("preserved_tokens", ["<|im_start|>"]),
        ("parse_tool_calls", False),
        ("vllm_xargs", {"x": 1}),
    ],
)
async def test_a_field_of_another_server_that_would_change_the_answer_is_refused(
    service: Service, field: str, value: Any
) -> None:
    for answer in (
        await service.chat(**{field: value}),
        await service.complete(**{field: value}),
    ):
        assert (answer.status, answer.error["param"]) == (400, field)
        assert field in answer.error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"prompt": "x"} x',
        b'{"prompt": NaN}',
        b"\xff",
        b'{"prompt": 1e999}',
    ],
)
async def test_broken_json_is_a_400(service: Service, body: bytes) -> None:
    answer = await service.post("/v1/completions", data=body, headers=JSON)
    assert answer.status == 400
    assert answer.error["code"] == "invalid_value"


@pytest.mark.parametrize("field", ["prompt", "tools", "unknown"])
async def test_deep_json_is_a_400(service: Service, field: str) -> None:
    deep = b'{"%s": %s%s, "prompt": "x"}' % (field.encode(), b"[" * 200_000, b"]" * 200_000)
    answer = await service.post("/v1/completions", data=deep, headers=JSON)
    assert answer.status == 400
    assert (await service.complete()).status == 200


async def test_a_9_mib_body_is_refused_at_once(service: Service) -> None:
    answer = await service.complete(prompt="x" * (9 * 1024 * 1024))
    assert answer.status == 413
    assert answer.error["code"] == "request_too_large"


async def test_a_chunked_body_is_refused_where_it_passes_the_limit(service: Service) -> None:
    async def endless() -> Any:
        for _ in range(160):
            yield b" " * 65536

    answer = await service.post("/v1/completions", data=endless(), headers=JSON)
    assert answer.status == 413


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {**JSON, "Content-Encoding": "gzip"},
        {**JSON, "Content-Encoding": "br"},
    ],
)
async def test_other_content_is_a_415(service: Service, headers: dict[str, str]) -> None:
    answer = await service.post("/v1/completions", data=b'{"prompt":"x"}', headers=headers)
    assert answer.status == 415
    assert answer.error["code"] == "unsupported_media_type"


async def test_unknown_routes_and_methods_are_json(service: Service) -> None:
    answer = await service.get("/nowhere")
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    answer = await service.post("/", data=b"{}", headers=JSON)
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    assert "Allow" not in answer.headers
    answer = await service.get("/v1/completions")
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST"


async def test_an_unknown_model_is_a_404(service: Service) -> None:
    answer = await service.complete(model="absent")
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert (await service.get("/v1/models/absent")).error["code"] == "model_not_found"


async def test_a_prompt_that_does_not_fit_is_context_length_exceeded(service: Service) -> None:
    for stream in (False, True):
        answer = await service.complete(prompt="x" * 4096, stream=stream)
        assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")


async def test_of_100_at_once_90_are_served_and_10_told_to_come_back() -> None:
    async with running(slots=10) as service:
        worker = service.fleet.start_worker(auto=False)
        sending = asyncio.gather(*(service.complete(prompt=f"p{i}") for i in range(100)))
        await until(lambda: service.dispatcher.ledger.requests.rejected == 10)
        worker.auto = True
        worker.go()
        answers = await sending
        assert sorted(answer.status for answer in answers) == [200] * 90 + [503] * 10
        for answer in answers:
            if answer.status == 503:
                assert int(answer.headers["Retry-After"]) >= 1
                assert answer.error["type"] == "overloaded_error"
        assert worker.most_active == 10


async def test_a_failed_engine_is_a_503_without_a_place_in_the_queue() -> None:
    """`rejected` counts requests that `submit` refuses: a plain call, which waits for nothing.
    `scripts/chaos --never-loads` measures the milliseconds."""
    async with running() as service:
        worker = service.fleet.start_worker(auto=False)
        service.fleet.change(FAILED)
        answer = await service.complete()
        assert (answer.status, answer.error["type"]) == (503, "engine_unavailable")
        assert answer.headers["Retry-After"] == "60"
        assert service.dispatcher.ledger.requests.rejected == 1
        assert worker.sent == []


async def test_draining_is_a_503(service: Service) -> None:
    service.dispatcher.drain()
    answer = await service.complete()
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 1


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)
NAMES = ["prompt", "n", "stop", "seed", "top_k", "stream", "logit_bias", "stream_options", "tools"]


@given(
    fields=st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=4), cut=st.integers(0, 200)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_whatsoever_is_a_500(fields: dict[str, Any], cut: int) -> None:
    async def main() -> None:
        async with running() as service:
            service.fleet.start_worker()
            body = msgspec.json.encode({"prompt": "x", **fields})
            for data in (body, body[:cut]):
                answer = await service.post("/v1/completions", data=data, headers=JSON)
                assert answer.status in {200, 400}, answer.body

    asyncio.run(main())
