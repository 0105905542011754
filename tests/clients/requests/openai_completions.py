"""Legacy completions."""

import math
from typing import Any

from openai.types import Completion
from openai.types.completion_choice import CompletionChoice

from tests.clients.requests.request import JSON, Answer, Check, Request, is_refused

PATH = "/v1/completions"


def completion(answer: Answer) -> list[CompletionChoice]:
    """The choices of an answer, whole or streamed."""
    if not answer.stream:
        # the first token of a prompt has null, as OpenAI answers and its types leave out
        found = Completion.model_validate(without_nulls(answer.json), strict=True)
        assert found.usage is not None
        return found.choices
    assert answer.data.endswith(b"data: [DONE]\n\n")
    texts: dict[int, str] = {}
    ends: dict[int, Any] = {}
    for document in answer.events:
        for one in document["choices"]:
            assert one["index"] not in ends
            texts[one["index"]] = texts.get(one["index"], "") + one["text"]
            if one["finish_reason"] is not None:
                ends[one["index"]] = one["finish_reason"]
    return [
        CompletionChoice(index=index, text=texts[index], finish_reason=ends[index])
        for index in sorted(texts)
    ]


def without_nulls(document: Any) -> Any:
    for choice in document["choices"]:
        told = choice.get("logprobs") or {}
        for key, nothing_said in (("token_logprobs", math.nan), ("top_logprobs", {})):
            told[key] = [nothing_said if one is None else one for one in told.get(key) or ()]
    return document


def texts(n: int = 1, beginning: str = "") -> Check:
    def check(answer: Answer) -> None:
        choices = completion(answer)
        assert [choice.index for choice in choices] == list(range(n))
        assert all(choice.text.startswith(beginning) for choice in choices)

    return check


def scored(answer: Answer) -> None:
    """Every token of the text has its place and its probability, but for the first one."""
    (choice,) = completion(answer)
    told = choice.logprobs
    assert told is not None
    assert told.tokens
    assert told.token_logprobs
    assert told.text_offset
    assert len(told.tokens) == len(told.token_logprobs) == len(told.text_offset)
    assert [math.isnan(one) for one in told.token_logprobs].count(True) == 1
    assert math.isnan(told.token_logprobs[0])


def filled(answer: Answer) -> None:
    """A text for the gap, or a refusal by a model without tokens for it."""
    if answer.status == 400:
        is_refused("suffix")(answer)
    else:
        completion(answer)


def request(client: str, needs: Check, *, streams: bool = True, **body: Any) -> Request:
    given = {"model": "default", "prompt": "Once upon a time", "max_tokens": 8} | body
    return Request(client, PATH, given, needs, headers=JSON, streams=streams)


def refused(client: str, param: str, **body: Any) -> Request:
    given = {"model": "default", "prompt": "Once", "max_tokens": 8} | body
    return Request(client, PATH, given, is_refused(param), 400, JSON)


IDS = list(range(100, 140))

REQUESTS = [
    request("openai-python", texts(), n=1, best_of=1, echo=False, logprobs=None, suffix=None,
            user="u", stop=None),
    request("openai-python two prompts, two choices", texts(4), prompt=["a", "b"], n=2),
    request("openai-python token ids", texts(), prompt=IDS),
    request("openai-python lists of token ids", texts(2), prompt=[IDS, IDS[:5]]),
    request("openai-python echo", texts(beginning="Once upon a time"), echo=True),
    request("openai-python best_of", texts(2), streams=False, best_of=3, n=2),
    request("lm-evaluation-harness", scored, streams=False, echo=True, logprobs=1, max_tokens=0,
            temperature=0, seed=1234),
    request("lm-evaluation-harness token ids", scored, streams=False, echo=True, logprobs=5,
            max_tokens=1, prompt=IDS),
    request("openai-python logprobs 0", texts(), streams=False, logprobs=0),
    request("copilot.lua", texts(), stop=["\n", "\n\n"], temperature=0, top_p=1, n=1,
            extra={"language": "python", "next_indent": 0, "trim_by_indentation": True}),
    request(
        "sillytavern",
        texts(),
        prompt="You are Ann.\nAnn:",
        **dict.fromkeys(["max_new_tokens", "max_tokens", "n_predict"], 8),
        temperature=0.7, top_p=0.9, typical_p=1, typical=1, sampler_seed=-1, min_p=0.05,
        repetition_penalty=1.1, rep_pen=1.1, frequency_penalty=0, presence_penalty=0, top_k=40,
        skew=0, min_tokens=0, min_length=0, add_bos_token=True, dry_allowed_length=2,
        dry_multiplier=0, dry_base=1.75, dry_sequence_breakers='["\\n", ":", "\\"", "*"]',
        dry_penalty_last_n=0, max_tokens_second=0, stopping_strings=["\nYou:"], stop=["\nYou:"],
        truncation_length=2048, ban_eos_token=False, skip_special_tokens=True,
        include_reasoning=True,
        top_a=0, tfs=1, mirostat_mode=0, mirostat_tau=5, mirostat_eta=0.1, custom_token_bans="",
        banned_strings=[], sampler_priority=[], samplers=["top_k", "temperature"],
        xtc_threshold=0.1,
        xtc_probability=0, nsigma=0, top_n_sigma=0, ignore_eos=False, rep_pen_range=0,
        repetition_penalty_range=0, guidance_scale=1, negative_prompt="",
        dynatemp_low=1, dynatemp_high=1, dynatemp_range=0,
        dynatemp_exponent=1, smoothing_factor=0, smoothing_curve=1, do_sample=True,
        no_repeat_ngram_size=0, penalty_alpha=0, num_beams=1, length_penalty=1,
        early_stopping=False, encoder_repetition_penalty=1, temperature_last=True, seed=-1,
        grammar_string="", grammar="", api_type="llamacpp", api_server="http://127.0.0.1",
        legacy_api=False, logit_bias=[], logprobs=10, n_probs=10, cache_prompt=True,
        speculative_ngram=False,
        epsilon_cutoff=0, eta_cutoff=0, bypass_status_check=True, reasoning_effort="auto",
    ),
    request("text-generation-webui", texts(), custom_token_bans="", mirostat_mode=0, preset=None,
            max_tokens_second=0, auto_max_new_tokens=False, add_bos_token=True),
    request("vllm", texts(), min_tokens=2, stop_token_ids=[0], ignore_eos=False, top_k=-1,
            include_stop_str_in_output=True, use_beam_search=False, prompt_logprobs=None, n=1,
            detokenize=True, allowed_token_ids=None, truncate_prompt_tokens=None),
    Request("continue fill-in", PATH, {"prompt": "def f(", "suffix": "):\n", "max_tokens": 8},
            filled, headers=JSON, streams=True),
    request("openai-python prompt of nothing", texts(), prompt=""),
    request("ai sdk", texts(), streams=False, prompt="user:\nHello\n\nassistant:\n", echo=True,
            logit_bias=None, stop=["\nuser:"], suffix="", user="u"),
    refused("best_of below n", "best_of", n=2, best_of=1),
    refused("nothing to complete", "prompt", prompt=[]),
    refused("a number", "prompt", prompt=7),
]  # fmt: skip
