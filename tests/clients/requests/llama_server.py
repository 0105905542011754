"""llama-server's own routes, as its editors' extensions and web interfaces use them."""

import json
from typing import Any

from jsonschema import Draft202012Validator

from tests.clients.requests.openai_chat import WEATHER, user
from tests.clients.requests.request import JSON, Answer, Check, Request, is_refused, nothing

PATH = "/completion"


def completion(answer: Answer) -> dict[str, Any]:
    """The last document, with the whole text."""
    if not answer.stream:
        found = answer.json
    else:
        *before, found = answer.events
        assert not any(one["stop"] for one in before)
        found = found | {"content": "".join(one["content"] for one in [*before, found])}
    assert found["stop"] is True
    assert found["stop_type"] in ("eos", "word", "limit")
    assert found["timings"]["predicted_n"] == found["tokens_predicted"]
    assert isinstance(found["generation_settings"], dict)
    whole: dict[str, Any] = found
    return whole


def many(n: int) -> Check:
    def check(answer: Answer) -> None:
        assert [one["index"] for one in answer.json] == list(range(n))

    return check


def fits(schema: dict[str, Any]) -> Check:
    def check(answer: Answer) -> None:
        found = completion(answer)
        if found["stop_type"] != "limit":
            assert not [*Draft202012Validator(schema).iter_errors(json.loads(found["content"]))]

    return check


def probabilities(answer: Answer) -> None:
    found = completion(answer)
    told = found["completion_probabilities"] if not answer.stream else [
        one for event in answer.events for one in event.get("completion_probabilities") or ()
    ]  # fmt: skip
    assert len(told) == found["tokens_predicted"]
    assert all({"id", "token", "bytes", "logprob", "top_logprobs"} <= one.keys() for one in told)
    assert all(len(one["top_logprobs"]) == 3 for one in told)


def filled(answer: Answer) -> None:
    if answer.status == 200:
        completion(answer)
    else:
        assert "fill-in-the-middle" in answer.json["error"]["message"]


def has(*keys: str) -> Check:
    def check(answer: Answer) -> None:
        assert set(keys) <= answer.json.keys()

    return check


def request(client: str, needs: Check, *, streams: bool = True, **body: Any) -> Request:
    given = {"prompt": "Once upon a time", "n_predict": 8} | body
    return Request(client, PATH, given, needs, headers=JSON, streams=streams)


def one(client: str, path: str, body: Any, needs: Check, status: int = 200, **more: Any) -> Request:
    return Request(client, path, body, needs, status, **({"headers": JSON} | more))


WEB_UI = {
    "samplers": "edkypmxt", "temperature": 0.8, "dynatemp_range": 0.0, "dynatemp_exponent": 1.0,
    "top_k": 40, "top_p": 0.95, "min_p": 0.05, "typical_p": 1.0, "xtc_probability": 0,
    "xtc_threshold": 0.1, "repeat_last_n": 64, "repeat_penalty": 1, "presence_penalty": 0,
    "frequency_penalty": 0, "dry_multiplier": 0, "dry_base": 1.75, "dry_allowed_length": 2,
    "dry_penalty_last_n": -1, "max_tokens": 8, "timings_per_token": False, "cache_prompt": True,
}  # fmt: skip

REQUESTS = [
    request("web interface", completion, **WEB_UI),
    request("plain", completion, n_predict=8, stop=["\n\n"], seed=42, id_slot=-1, n_keep=0,
            cache_prompt=True, return_tokens=True, min_keep=0, t_max_predict_ms=0),
    request("return_progress", completion, return_progress=True, timings_per_token=True),
    request("probabilities", probabilities, n_probs=3, post_sampling_probs=False),
    request("json_schema", fits(WEATHER), json_schema=WEATHER, n_predict=200),
    request("grammar", completion, grammar='root ::= ("a" | "b")+ "\\n"', n_predict=20),
    request("lora and bias", completion, lora=[], logit_bias=[[72, 1.0], ["Hello", -0.5]]),
    request("token ids", completion, prompt=[1, 2, 3]),
    request("mixed", completion, prompt=["Once", 100, " there"]),
    request("two texts", many(2), prompt=["a", "b"], streams=False),
    request("an object", completion, prompt={"prompt_string": "Once"}),
    one("response_fields", PATH, {"prompt": "a", "n_predict": 2, "response_fields": [
        "content", "timings/prompt_n"]}, has("content", "timings/prompt_n")),
    one("llama.vim", "/infill", {
        "id_slot": 0, "input_prefix": "def f(", "input_suffix": "\n", "input_extra": [
            {"text": "x = 1", "filename": "a.py", "time": 1}], "prompt": "a", "n_predict": 8,
        "stop": [], "n_indent": 0, "top_k": 40, "top_p": 0.9, "stream": False,
        "samplers": ["top_k", "top_p", "infill"], "cache_prompt": True,
        "t_max_prompt_ms": 500, "t_max_predict_ms": 1000, "response_fields": ["content"]},
        nothing),
    one("llama.vim warm-up", "/infill", {
        "input_prefix": "", "input_suffix": "", "input_extra": [], "prompt": "", "n_predict": 0,
        "temperature": 0, "stream": False, "samplers": [], "cache_prompt": True,
        "t_max_prompt_ms": 1, "t_max_predict_ms": 1, "response_fields": [""]}, nothing),
    one("tokenize", "/tokenize", {"content": "Hello", "add_special": True, "with_pieces": True},
        has("tokens")),
    one("detokenize", "/detokenize", {"tokens": [100, 101]}, has("content")),
    one("apply-template", "/apply-template", {"messages": [user()], "tools": None},
        has("prompt")),
    one("props", "/props", None, has("default_generation_settings", "total_slots",
                                     "chat_template", "model_path"), method="GET"),
    one("slots", "/slots", None, nothing, method="GET"),
    one("health", "/health", None, has("status"), method="GET"),
    one("health below v1", "/v1/health", None, has("status"), method="GET"),
    one("models", "/models", None, has("data"), method="GET"),
    one("lora adapters", "/lora-adapters", None, nothing, method="GET"),
    one("chat without v1", "/chat/completions", {"messages": [user()], "max_tokens": 4},
        has("choices")),
    one("completions alias", "/completions", {"prompt": "a", "n_predict": 4}, nothing),
    one("anthropic count", "/v1/messages/count_tokens", {"messages": [user()]},
        has("input_tokens")),
    one("embedding", "/embedding", {"content": "a", "embd_normalize": 2}, nothing),
    one("rerank by a model that cannot", "/v1/rerank", {
        "model": "default", "query": "q", "documents": ["a", "b"], "top_n": 1}, nothing, 400),
    one("cohere", "/v2/rerank", {"model": "default", "query": "q", "documents": [
        {"text": "a"}], "return_documents": True, "max_chunks_per_doc": 10}, nothing, 400),
    one("sound", "/v1/audio/speech", {"input": "a"}, nothing, 501),
    one("pictures", "/v1/images/generations", {"prompt": "a"}, nothing, 501),
    one("media in a prompt", PATH, {"prompt": {"prompt_string": "a", "multimodal_data": ["AA"]}},
        is_refused("prompt.multimodal_data"), 400),
    one("bad grammar", PATH, {"prompt": "a", "grammar": "root ::= ("},
        is_refused("grammar", "invalid_grammar"), 400),
    one("nothing", PATH, {}, is_refused("prompt"), 400),
]  # fmt: skip
