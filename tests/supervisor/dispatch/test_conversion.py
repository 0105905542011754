"""A sequence's log and its message on the link say the same, in both directions."""

import pytest
from msgspec import structs

from gpufc.adapters import AdapterUse
from gpufc.config import Replay
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Batching, Delta, Generate, LogprobsWanted, TokenRules
from gpufc.sampling import SamplingParams
from supervisor.dispatch.conversion import from_generate, to_generate
from supervisor.dispatch.stream_log import StreamLog
from tests.supervisor.dispatch.fakes import request

MESSAGE = Generate(
    Epoch(3),
    RequestNo(7),
    RequestId("r"),
    2,
    (1, 2, 3),
    SamplingParams(seed=9, temperature=0.5),
    max_tokens=50,
    stop=("END",),
    tokens=(10, 11),
    replay=Replay.EXACT,
    cache_prompt=False,
    scope="me",
    spelt=("[TOOL_CALLS]",),
    constraint=Constraint(ConstraintKind.REGEX, "a+", "regex"),
    adapters=(AdapterUse("pirate", 0.5),),
    logprobs=LogprobsWanted(3, prompt=True),
    rules=TokenRules(stop=(5,), min_tokens=2),
    sampler_state=(9.5,),
    prediction=(4, 5),
    batching=Batching(-3, chunk_tokens=64),
    yields=True,
)


def test_a_sequence_of_another_front_is_sent_on_as_it_came() -> None:
    log = from_generate(RequestNo(8), "model", 0, MESSAGE)
    sent = to_generate(log, Epoch(5))
    assert sent == structs.replace(MESSAGE, epoch=Epoch(5), request=RequestNo(8))
    assert log.texts == []
    assert log.request.model == "model"


def test_no_field_of_the_message_is_left_at_its_default() -> None:
    for field in structs.fields(Generate):
        assert getattr(MESSAGE, field.name) != field.default, field.name


def test_the_message_carries_the_request_as_accepted_and_the_tokens_so_far() -> None:
    log = StreamLog(RequestNo(7), request(max_tokens=50), scope="me")
    log.prompt_tokens = (1, 2, 3)
    log.dispatched(Epoch(1))
    log.append(Delta(log.no, 0, (10, 11), "ab", sampler_state=(8.25,)), Epoch(1))
    again = to_generate(log, Epoch(2))
    assert again.tokens == (10, 11)
    assert again.sampler_state == (8.25,)
    assert again.prompt_tokens == (1, 2, 3)
    assert (again.max_tokens, again.scope, again.epoch) == (50, "me", 2)
    assert again.sampling == log.request.sampling


def test_a_sequence_without_its_prompt_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="prompt"):
        to_generate(StreamLog(RequestNo(7), request()), Epoch(1))
