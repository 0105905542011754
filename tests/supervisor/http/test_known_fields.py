"""Every dialect serves the fields that all routes share, or refuses them by name."""

from typing import Any

import pytest

from tests.supervisor.dispatch.fakes import generates
from tests.supervisor.http.conftest import Service, running

HELLO = {"messages": [{"role": "user", "content": "hi"}]}
DIALECTS = {
    "/v1/chat/completions": HELLO,
    "/v1/completions": {"prompt": "hi"},
    "/completion": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": HELLO,
    "/api/chat": {**HELLO, "stream": False},
    "/api/generate": {"prompt": "hi", "stream": False},
}


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize(
    ("field", "value", "neutral"),
    [
        ("bad_words", ["x"], []),
        ("mirostat_mode", 2, 0),
        ("tfs_z", 0.9, 1.0),
        ("prompt_logprobs", 1, None),
        ("length_penalty", 1.2, 1),
        ("num_predict", 3, None),
        ("audio", {"voice": "x"}, None),
        ("grammar_lazy", True, False),
    ],
)
async def test_every_dialect_refuses_a_known_field_that_it_does_not_serve(
    service: Service, path: str, field: str, value: Any, neutral: Any
) -> None:
    answer = await service.post(path, {**DIALECTS[path], field: value})
    assert answer.status == 400, answer.body
    assert field in str(answer.json["error"])
    assert (await service.post(path, {**DIALECTS[path], field: neutral})).status == 200


@pytest.mark.parametrize("path", DIALECTS)
async def test_every_dialect_serves_the_fields_that_all_routes_share(path: str) -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        fields = {"frequency_penalty": 1.5, "stop": ["end"], "logit_bias": {"7": 5}, "seed": 9}
        answer = await service.post(path, {**DIALECTS[path], **fields})
        assert answer.status == 200, answer.body
        (sent,) = generates(worker.sent)
        assert (sent.sampling.frequency_penalty, sent.sampling.seed) == (1.5, 9)
        assert (sent.stop, sent.sampling.logit_bias) == (("end",), ((7, 5.0),))


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/api/chat", "/api/generate"])
async def test_a_dialect_of_one_answer_refuses_more(service: Service, path: str) -> None:
    answer = await service.post(path, {**DIALECTS[path], "n": 2})
    assert answer.status == 400
    assert "at most 1" in str(answer.json["error"])
    assert (await service.post(path, {**DIALECTS[path], "n": 1.0})).status == 200


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
async def test_an_option_goes_before_a_field_beside_it(path: str) -> None:
    async with running() as service:
        worker = service.fleet.start_worker()
        body = {"temperature": 0.5, "seed": 3, "options": {"temperature": 0.25, "top_n_sigma": 2}}
        assert (await service.post(path, {**DIALECTS[path], **body})).status == 200
        (sent,) = generates(worker.sent)
        sampling = sent.sampling
        assert (sampling.temperature, sampling.seed, sampling.top_n_sigma) == (0.25, 3, 2)
        for options in ({"bad_words": ["x"]}, {"n": 2}, {"grammar_lazy": True}):
            answer = await service.post(path, {**DIALECTS[path], "options": options})
            assert answer.status == 400, answer.body
            assert next(iter(options)) in answer.json["error"]
