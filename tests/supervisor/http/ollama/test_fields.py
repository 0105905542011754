"""Ollama's fields reach the worker under the internal request's names, or are refused by name."""

from typing import Any

import msgspec
import pytest

from gpufc.chat import ChatPrompt
from gpufc.constraint import ConstraintKind
from gpufc.protocol import LogprobsWanted
from supervisor.http.ollama.fields import IGNORED, SHARED
from tests.supervisor.dispatch.fakes import FakeWorker
from tests.supervisor.http.conftest import Service, running
from tests.supervisor.http.ollama.conftest import ask, generated, lines, prepared

PATHS = ["/api/chat", "/api/generate"]

SAMPLING = {
    "temperature": 0.25,
    "top_k": 7,
    "top_p": 0.5,
    "min_p": 0.125,
    "typical_p": 0.75,
    "repeat_last_n": 33,
    "repeat_penalty": 1.5,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "seed": 42,
}


async def sent_with(path: str, **fields: Any) -> FakeWorker:
    async with running() as service:
        worker = service.fleet.start_worker()
        lines(await ask(service, path, **fields))
        return worker


@pytest.mark.parametrize("path", PATHS)
async def test_options_are_sampling_parameters(path: str) -> None:
    options = {**SAMPLING, "stop": ["a", "b"], "num_predict": 3, "cache_prompt": False}
    found = generated(await sent_with(path, options=options))
    assert {name: getattr(found.sampling, name) for name in SAMPLING} == SAMPLING
    assert (found.stop, found.max_tokens, found.cache_prompt) == (("a", "b"), 3, False)


@pytest.mark.parametrize("path", PATHS)
async def test_a_stop_may_be_one_text_and_a_whole_number_a_float(path: str) -> None:
    options = {"stop": "end", "num_predict": 4.0, "top_k": 9.0, "seed": 5.0}
    found = generated(await sent_with(path, options=options))
    assert (found.stop, found.max_tokens) == (("end",), 4)
    assert (found.sampling.top_k, found.sampling.seed) == (9, 5)


@pytest.mark.parametrize("number", [-2, -1, 0, None])
async def test_a_num_predict_that_is_not_positive_is_no_limit(number: int | None) -> None:
    assert (
        generated(await sent_with("/api/chat", options={"num_predict": number})).max_tokens is None
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("beside", "options", "most"),
    [
        ({"max_tokens": 5}, {"num_predict": 100}, 100),
        ({"max_tokens": 5}, {"num_predict": -1}, None),
        ({"n_predict": 5}, {"num_predict": -1}, None),
        ({"max_tokens": 5}, {"n_predict": 7}, 7),
        ({"n_predict": 5}, {"max_tokens": 7}, 7),
        ({"max_tokens": 5}, {"num_predict": 3, "max_tokens": 7}, 3),
        ({"max_tokens": 5}, {"num_predict": None}, 5),
    ],
)
async def test_an_option_for_the_limit_goes_before_a_field_of_any_name(
    path: str, beside: dict[str, Any], options: dict[str, Any], most: int | None
) -> None:
    assert generated(await sent_with(path, **beside, options=options)).max_tokens == most


async def test_an_option_for_the_penalty_goes_before_a_field_of_another_name() -> None:
    for own, other in (
        ("repeat_penalty", "repetition_penalty"),
        ("repetition_penalty", "repeat_penalty"),
    ):
        worker = await sent_with("/api/chat", **{other: 1.1}, options={own: 1.3})
        assert generated(worker).sampling.repeat_penalty == pytest.approx(1.3)


@pytest.mark.parametrize("path", PATHS)
async def test_options_of_loading_unknown_ones_and_nulls_change_nothing(path: str) -> None:
    plain = generated(await sent_with(path, options={"seed": 1}))
    many = dict.fromkeys((*SHARED, *IGNORED), None) | {"seed": 1}
    odd = {"num_ctx": 12345.75, "num_gpu": -1, "use_mmap": "x", "think": True, "made_up": [{}]}
    for options in (many, many | odd):
        found = generated(await sent_with(path, options=options))
        assert (found.sampling, found.max_tokens, found.stop) == (plain.sampling, None, ())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_k": "many"}, "top_k"),
        ({"num_predict": "many"}, "num_predict"),
        ({"num_predict": True}, "num_predict"),
        ({"stop": [1]}, "stop"),
        ({"mirostat": 3}, "mirostat"),
    ],
)
async def test_a_bad_option_is_refused_by_name(
    service: Service, options: dict[str, Any], named: str
) -> None:
    answer = await ask(service, options=options)
    assert (answer.status, list(answer.json)) == (400, ["error"])
    assert named in answer.json["error"]


@pytest.mark.parametrize("path", PATHS)
async def test_log_probabilities_may_be_options(path: str) -> None:
    options = {"logprobs": True, "top_logprobs": 2}
    assert generated(await sent_with(path, options=options)).logprobs == LogprobsWanted(2)
    found = generated(await sent_with(path, logprobs=True, top_logprobs=3, options=options))
    assert found.logprobs == LogprobsWanted(2)
    found = generated(await sent_with(path, logprobs=True, options={"logprobs": False}))
    assert found.logprobs is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("think", False), ("think", "high"), ("format", "json"), ("options", {"a": 1})],
)
async def test_a_field_that_is_no_option_is_refused_with_its_right_place(
    service: Service, name: str, value: Any
) -> None:
    answer = await ask(service, options={name: value})
    assert answer.status == 400
    assert f"{name} stands beside options" in answer.json["error"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("nothing", ["", None])
async def test_an_empty_format_is_no_constraint(path: str, nothing: str | None) -> None:
    assert prepared(await sent_with(path, format=nothing)).constraint is None


@pytest.mark.parametrize("path", PATHS)
async def test_a_format_is_a_constraint(path: str) -> None:
    found = prepared(await sent_with(path, format="json")).constraint
    assert found is not None
    assert found.kind is ConstraintKind.JSON_OBJECT
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    found = prepared(await sent_with(path, format=schema)).constraint
    assert found is not None
    assert found.kind is ConstraintKind.JSON_SCHEMA
    assert msgspec.json.decode(found.text) == schema


INTEGER = {"type": "integer"}
OBJECT = {"type": "object"}


@pytest.mark.parametrize(
    ("wanted", "beside"),
    [
        ("json", {"response_format": {"type": "json_schema", "json_schema": {"schema": INTEGER}}}),
        ("json", {"json_schema": INTEGER}),
        (OBJECT, {"json_schema": INTEGER}),
        (OBJECT, {"response_format": {"type": "json_object"}}),
        (OBJECT, {"options": {"grammar": 'root ::= "a"'}}),
    ],
)
async def test_a_format_beside_another_constraint_is_refused(
    service: Service, wanted: Any, beside: dict[str, Any]
) -> None:
    answer = await ask(service, format=wanted, **beside)
    assert answer.status == 400
    assert "ask for two formats" in answer.json["error"]


async def test_a_format_may_stand_beside_the_same_one_and_beside_none() -> None:
    for beside in ({"json_schema": OBJECT}, {"response_format": {"type": "text"}}):
        found = prepared(await sent_with("/api/chat", format=OBJECT, **beside)).constraint
        assert found is not None
        assert msgspec.json.decode(found.text) == OBJECT


@pytest.mark.parametrize("wanted", ["xml", 7, ["json"]])
async def test_another_format_is_refused(service: Service, wanted: Any) -> None:
    answer = await ask(service, format=wanted)
    assert answer.status == 400
    assert "format" in answer.json["error"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("think", "expected"),
    [
        (None, {}),
        (True, {"enable_thinking": True, "thinking": True}),
        (False, {"enable_thinking": False, "thinking": False}),
        ("high", {"enable_thinking": True, "thinking": True, "reasoning_effort": "high"}),
    ],
)
async def test_think_is_a_variable_of_the_chat_template(
    path: str, think: Any, expected: dict[str, Any]
) -> None:
    prompt = prepared(await sent_with(path, think=think)).prompt
    assert isinstance(prompt, ChatPrompt)
    assert (msgspec.json.decode(prompt.variables) if prompt.variables else {}) == expected
