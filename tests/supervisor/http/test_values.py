"""Numbers as people write them."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import structs

from gpufc.errors import InvalidRequest
from gpufc.sampling import SamplerName, SamplingFields, SamplingParams
from supervisor.http.edge.values import decode
from supervisor.http.generation import validation
from supervisor.http.generation.tools import Tool, offered
from supervisor.http.openai.completions import CompletionBody
from tests.growth import assert_linear, calls


def read(**fields: Any) -> CompletionBody:
    return decode(msgspec.json.encode({"prompt": "x", **fields}), CompletionBody)


def sampled(**fields: Any) -> SamplingParams:
    return validation.sampling(read(**fields), SamplingFields(), {})


def test_whole_numbers_may_be_written_as_floats() -> None:
    body = read(max_tokens=8.0, n=2.0, top_k=5.0, seed=7.0, prompt=[1.0, 2.0])
    assert (body.max_tokens, body.n, body.top_k, body.seed) == (8, 2, 5, 7)
    assert body.prompt == [1, 2]


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_byte_order_mark_before_a_body_is_read_over(kind: Callable[[bytes], bytes]) -> None:
    body = kind(b'\xef\xbb\xbf{"prompt": "\xef\xbb\xbfx", "n": 2.0}')
    found = decode(body, CompletionBody)
    assert (found.prompt, found.n) == ("\ufeffx", 2)
    with pytest.raises(msgspec.DecodeError):
        decode(kind(b"\xef\xbb\xbf" * 2 + b"{}"), CompletionBody)


@pytest.mark.parametrize("field", ["max_tokens", "n", "top_k", "seed"])
def test_other_floats_are_not_whole_numbers(field: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        read(**{field: 8.5})


@pytest.mark.parametrize("seed", [-1, -1.0, None])
def test_a_seed_of_minus_one_is_random(seed: Any) -> None:
    assert len({sampled(seed=seed).seed for _ in range(8)}) > 1
    assert sampled(seed=5).seed == 5


def test_the_repeat_penalty_has_two_names() -> None:
    assert sampled(repetition_penalty=1.3).repeat_penalty == 1.3
    assert sampled(repetition_penalty=1.3, repeat_penalty=1.1).repeat_penalty == 1.1
    assert sampled().repeat_penalty == 1.0


def test_a_request_goes_before_the_model_s_defaults_and_these_before_llama_cpp_s() -> None:
    defaults = SamplingFields(temperature=0.3, top_k=7, repeat_penalty=1.2, samplers="kt")
    found = validation.sampling(read(top_k=-1, repetition_penalty=1.4), defaults, {5: 1.0})
    assert (found.temperature, found.top_k, found.repeat_penalty) == (0.3, 0, 1.4)
    assert found.samplers == (SamplerName.TOP_K, SamplerName.TEMPERATURE)
    assert (found.top_p, found.logit_bias) == (0.95, ((5, 1.0),))


@pytest.mark.parametrize("form", [str, lambda word: [word]], ids=["text", "list"])
def test_long_words_cost_little_and_are_not_repeated(form: Callable[[str], Any]) -> None:
    """All of it is read in the event loop."""

    def refused(n: int) -> Callable[[], object]:
        samplers = form("e" * n)

        def ask() -> None:
            with pytest.raises(InvalidRequest) as refused:
                sampled(samplers=samplers)
            assert len(refused.value.message) < 300

        return ask

    assert calls(refused(250_000)) == calls(refused(2_000_000))
    assert_linear(refused, 250_000)


def test_a_long_type_of_a_tool_is_cut_and_costs_nothing() -> None:
    def skipped(n: int) -> Callable[[], object]:
        tools = [Tool(type="!" * n)]
        return lambda: offered(tools, None).skipped

    assert skipped(2_000_000)() == ("_" * 50,)
    assert calls(skipped(1000)) == calls(skipped(2_000_000))
    assert_linear(skipped, 250_000)


def test_samplers_are_read_as_llama_server_reads_them() -> None:
    found = sampled(samplers=["DRY", "top-k", "temp"], dry_sequence_breakers=["\n", "x"])
    assert found.samplers == (SamplerName.DRY, SamplerName.TOP_K, SamplerName.TEMPERATURE)
    assert found.dry_sequence_breakers == ("\n", "x")
    for text in ('["\\n", "x"]', ' "\\n", "x"'):
        assert sampled(dry_sequence_breakers=text).dry_sequence_breakers == ("\n", "x")
    assert sampled(samplers=[]).samplers == ()
    assert sampled(dry_base=0.5).dry_base == 1.75
    assert sampled(dry_base=2).dry_base == 2.0


def test_every_parameter_of_a_sequence_may_be_given_under_its_name() -> None:
    given = {field.name for field in structs.fields(SamplingFields)}
    params = {field.name for field in structs.fields(SamplingParams)}
    assert params - {"seed", "logit_bias"} == given
