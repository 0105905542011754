"""The sequences of a dead worker: their parameters, and no text of clients or models."""

import msgspec

from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Delta, Finished, FinishReason, Generate, Refused, Step
from gpufc.sampling import SamplingParams
from supervisor.fleet.batch_record import MAX_RECORDED, Batch

EPOCH = Epoch(3)


def sequence(number: int, **changes: object) -> Generate:
    sampling = SamplingParams(
        seed=9,
        temperature=0.0,
        logit_bias=((70, 1.0), (71, 2.0)),
        dry_sequence_breakers=("BREAK",),
    )
    made = Generate(
        EPOCH,
        RequestNo(number),
        RequestId(f"id-{number}"),
        1,
        (50, 51, 52),
        sampling,
        40,
        ("STOP",),
    )
    return msgspec.structs.replace(made, **changes)


def numbers(batch: Batch, *first: int) -> list[int]:
    return [record.no for record in batch.records(tuple(map(RequestNo, first)))]


def test_a_record_has_the_parameters_that_differ_and_counts_for_what_is_the_clients() -> None:
    batch = Batch()
    batch.given(sequence(5, tokens=(60, 61)))
    (record,) = batch.records(())
    assert (record.no, record.request, record.choice) == (5, "id-5", 1)
    assert (record.n_prompt_tokens, record.n_tokens, record.max_tokens) == (3, 2, 40)
    assert record.parameters == {
        "seed": 9,
        "temperature": 0.0,
        "n_logit_bias": 2,
        "n_dry_sequence_breakers": 1,
        "n_stop": 1,
        "replay": "fast",
        "cache_prompt": True,
    }
    written = msgspec.json.encode(record).decode()
    assert not any(secret in written for secret in ("STOP", "BREAK", "50", "60", "70"))


def test_what_has_ended_is_no_longer_had() -> None:
    batch = Batch()
    for number in range(1, 6):
        batch.given(sequence(number))
    goes_on = Delta(RequestNo(1), 0, (7,), "x")
    ends = Delta(RequestNo(2), 0, (7,), "x", FinishReason.STOP)
    batch.told(Step(EPOCH, 1, (goes_on, ends)))
    batch.told(Finished(EPOCH, RequestNo(3), FinishReason.CANCELLED))
    batch.told(Refused(EPOCH, RequestNo(4), "x", "y"))
    assert numbers(batch) == [1, 5]


def test_the_fatal_batch_comes_first_and_the_number_is_bounded() -> None:
    batch = Batch()
    for number in range(1, MAX_RECORDED + 10):
        batch.given(sequence(number))
    found = numbers(batch, MAX_RECORDED + 5, 7)
    assert (len(found), found[:3]) == (MAX_RECORDED, [7, MAX_RECORDED + 5, 1])
