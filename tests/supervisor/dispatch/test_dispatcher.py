"""From `submit` to the terminal state, over workers that come and go."""

import asyncio

import pytest
from msgspec import structs

from gpufc.constraint import Constraint, ConstraintKind
from gpufc.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    InternalError,
    InvalidGrammar,
    InvalidRequest,
    Overloaded,
)
from gpufc.ids import Epoch
from gpufc.protocol import (
    Cancel,
    Delta,
    FinishReason,
    Prepare,
    Refused,
    Step,
    TextPrompt,
)
from supervisor.answers.parts import BEGUN, Ended, Text
from supervisor.dispatch.conversion import to_generate
from supervisor.dispatch.request import ANONYMOUS, Principal, Reading
from tests.supervisor.dispatch.fakes import (
    FAILED,
    MODEL,
    generates,
    request,
    text_of,
    tokens_of,
    until,
    whole_texts,
)
from tests.supervisor.dispatch.front import Front


async def test_a_request_is_prepared_generated_and_counted() -> None:
    front = Front()
    front.fleet.start_worker()
    stream = front.submit()
    assert await whole_texts(stream) == [text_of("hello")]
    assert (stream.usage.prompt, stream.usage.completion) == (5, 5)
    assert front.requests["succeeded"] == 1
    assert front.dispatcher.idle
    assert front.dispatcher.ledger.tokens.generated == 5


async def test_prompts_and_choices_are_sequences_with_their_own_text_and_one_preparation() -> None:
    front = Front(slots=4)
    worker = front.fleet.start_worker()
    stream = front.submit(request("a", "b", n=2))
    texts = await whole_texts(stream)
    assert texts == [text_of(prompt, choice=choice) for prompt in "ab" for choice in (0, 1)]
    assert sum(isinstance(message, Prepare) for message in worker.sent) == 2
    assert stream.usage.prompt == 2
    assert {message.sampling.seed for message in generates(worker.sent)} == {1}


async def test_no_more_run_than_there_are_slots_and_all_are_served() -> None:
    front = Front(slots=3, queue=20)
    worker = front.fleet.start_worker()
    streams = [front.submit(request(f"p{i}")) for i in range(20)]
    texts = await asyncio.gather(*(whole_texts(stream) for stream in streams))
    assert texts == [[text_of(f"p{i}")] for i in range(20)]
    assert worker.most_active == 3


async def test_a_clients_only_request_starts_before_another_ones_fifty() -> None:
    front = Front(slots=2, queue=60)
    worker = front.fleet.start_worker()
    many = [front.submit(request(f"many{i}")) for i in range(50)]
    one = front.submit(request("one"), Principal("b", ANONYMOUS.scopes))
    assert await whole_texts(one) == [text_of("one")]
    asked = [message.prompt_tokens for message in generates(worker.sent)]
    assert asked.index(tokens_of(TextPrompt("one"))) == 2  # after those that ran already
    await asyncio.gather(*(whole_texts(stream) for stream in many))


async def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    front = Front(slots=1, queue=1)
    front.fleet.start_worker(auto=False)
    streams = [front.submit(), front.submit()]
    with pytest.raises(Overloaded) as refused:
        front.submit()
    assert (refused.value.retry_after_s or 0) >= 1
    assert front.requests["rejected"] == 1
    for stream in streams:
        stream.cancel()


async def test_a_request_for_more_than_there_are_places_is_invalid() -> None:
    front = Front(slots=1, queue=1)
    with pytest.raises(InvalidRequest):
        front.submit(request(n=3))


async def test_requests_wait_for_the_first_worker() -> None:
    front = Front()
    stream = front.submit()
    assert await stream.next(0.01) is None
    front.fleet.start_worker()
    assert await whole_texts(stream) == [text_of("hello")]


async def test_a_queued_request_that_cannot_fit_is_refused_before_its_turn() -> None:
    front = Front(slots=1)
    front.fleet.start_worker(auto=False)
    front.submit()
    stream = front.submit(request("x" * 4096))
    with pytest.raises(ContextLengthExceeded):
        await stream.next(5)
    assert front.requests["rejected"] == 1


async def test_one_refused_prompt_ends_the_whole_request() -> None:
    front = Front(slots=4)
    worker = front.fleet.start_worker(auto=False)
    stream = front.submit(request("short", "long" * 2000))
    with pytest.raises(ContextLengthExceeded):
        await whole_texts(stream)
    await until(lambda: front.dispatcher.idle)
    assert not worker.active


async def test_a_failed_model_ends_waiting_requests_and_refuses_new_ones() -> None:
    front = Front()
    stream = front.submit()
    front.fleet.change(FAILED)
    with pytest.raises(EngineUnavailable) as ended:
        await whole_texts(stream)
    assert ended.value.retry_after_s == 60.0
    with pytest.raises(EngineUnavailable):
        front.submit()


async def test_cancel_frees_the_slot_once_the_worker_has_stopped() -> None:
    front = Front(slots=1)
    worker = front.fleet.start_worker(auto=False)
    stream = front.submit()
    await until(lambda: worker.active)
    stream.cancel()
    stream.cancel()
    assert front.dispatcher.occupancy.running == 1
    await until(lambda: front.dispatcher.idle)
    assert sum(isinstance(message, Cancel) for message in worker.sent) == 1
    assert front.requests["cancelled"] == 1
    assert await stream.next(1) == []


async def test_cancelled_counts_also_when_the_worker_is_lost() -> None:
    front = Front()
    worker = front.fleet.start_worker(auto=False)
    stream = front.submit()
    await until(lambda: worker.active)
    stream.cancel()
    worker.die()
    assert front.dispatcher.idle
    assert front.requests["cancelled"] == 1
    assert front.requests["replayed"] == 0


async def test_a_cancelled_request_in_the_queue_is_gone_at_once() -> None:
    front = Front(slots=1)
    worker = front.fleet.start_worker(auto=False)
    front.submit()
    queued = front.submit()
    await until(lambda: worker.active)
    queued.cancel()
    assert front.dispatcher.occupancy.waiting == 0


async def test_messages_of_an_older_epoch_change_nothing() -> None:
    front = Front()
    old = front.fleet.start_worker(auto=False)
    stream = front.submit()
    await until(lambda: old.active)
    (no,) = old.active
    old.die()
    new = front.fleet.start_worker(auto=False)
    await until(lambda: new.active)
    front.dispatcher.worker_message(old, Step(old.epoch, 1, (Delta(no, 0, (9,), "old"),)))
    new.auto = True
    new.go()
    assert await whole_texts(stream) == [text_of("hello")]


async def test_missing_tokens_end_the_request_rather_than_show_a_gap() -> None:
    front = Front()
    worker = front.fleet.start_worker(auto=False)
    stream = front.submit()
    await until(lambda: worker.active)
    (no,) = worker.active
    worker.tell(Step(worker.epoch, 1, (Delta(no, 3, (9,), "late"),)))
    with pytest.raises(InternalError):
        await whole_texts(stream)
    await until(lambda: front.dispatcher.idle)


async def test_replicas_share_the_work_evenly() -> None:
    front = Front(slots=2, replicas=2)
    workers = [front.fleet.start_worker(auto=False) for _ in range(2)]
    for i in range(4):
        front.submit(request(f"p{i}"))
    await until(lambda: sum(len(worker.active) for worker in workers) == 4)
    assert [len(worker.active) for worker in workers] == [2, 2]


async def test_tokenize_waits_for_a_worker_and_survives_its_loss() -> None:
    front = Front()
    asked = asyncio.create_task(front.dispatcher.asking.prepare(MODEL, TextPrompt("ab")))
    await asyncio.sleep(0)
    worker = front.fleet.start_worker()
    worker.answers_prepare = False
    await until(lambda: worker.sent)
    worker.die()
    front.fleet.start_worker()
    assert tuple(await asked) == (97, 98)
    assert await front.dispatcher.asking.detokenize(MODEL, [(97,), (98, 99)]) == [b"a", b"bc"]


async def test_draining_refuses_new_work_and_waits_for_the_old() -> None:
    front = Front()
    worker = front.fleet.start_worker(auto=False)
    stream = front.submit()
    await until(lambda: worker.active)
    front.dispatcher.drain(retry_after_s=7)
    with pytest.raises(Overloaded) as refused:
        front.submit()
    assert refused.value.retry_after_s == 7
    assert not await front.dispatcher.wait_idle(0.01)
    worker.auto = True
    worker.go()
    assert await front.dispatcher.wait_idle(60)
    assert await whole_texts(stream) == [text_of("hello")]


async def test_end_all_gives_every_request_the_same_end() -> None:
    front = Front(slots=1)
    worker = front.fleet.start_worker(auto=False)
    streams = [front.submit(), front.submit()]
    await until(lambda: worker.active)
    front.dispatcher.end_all(Overloaded("bye", retry_after_s=1))
    for stream in streams:
        with pytest.raises(Overloaded):
            await whole_texts(stream)
    await until(lambda: front.dispatcher.idle)
    assert front.requests["failed"] + front.requests["rejected"] == 2


async def test_a_slow_reader_gets_the_accumulated_text_in_one_event() -> None:
    front = Front()
    front.fleet.start_worker()
    stream = front.submit()
    await until(lambda: front.dispatcher.idle)
    events = await stream.next(1)
    assert events is not None
    assert [event.parts for event in events] == [
        (BEGUN, Text(text_of("hello")), Ended(FinishReason.STOP))
    ]
    assert stream.done


async def test_a_replay_would_carry_the_tokens_that_there_are() -> None:
    front = Front()
    worker = front.fleet.start_worker(auto=False)
    stream = front.submit()
    await until(lambda: worker.active)
    worker.step()
    worker.step()
    again = to_generate(stream.logs[0], Epoch(99))
    assert again.tokens == (0, 1)
    assert again.sampling == stream.request.sampling


async def test_cached_prompt_tokens_count_once_for_all_choices() -> None:
    front = Front(slots=4)
    worker = front.fleet.start_worker()
    worker.n_cached = 3
    stream = front.submit(request(n=3))
    await whole_texts(stream)
    assert stream.usage.cached == 3
    assert front.dispatcher.ledger.tokens.prompt_cached == 3
    assert front.dispatcher.ledger.tokens.prompt == 5


async def test_the_grammar_of_an_answer_s_reading_is_compiled_before_a_slot_is_held() -> None:
    front = Front(slots=1)
    worker = front.fleet.start_worker()
    grammar = Constraint(ConstraintKind.REGEX, "a+", "tools")
    wanted = structs.replace(request(n=2), reading=lambda _opening: Reading(constraint=grammar))
    stream = front.submit(wanted)
    await until(lambda: generates(worker.sent))
    asked = [message for message in worker.sent if isinstance(message, Prepare)]
    assert [message.constraint for message in asked] == [None, grammar]
    assert worker.sent.index(asked[-1]) < worker.sent.index(generates(worker.sent)[0])
    assert len(await whole_texts(stream)) == 2


async def test_a_grammar_that_is_refused_ends_the_request_without_a_start() -> None:
    front = Front()
    worker = front.fleet.start_worker()
    grammar = Constraint(ConstraintKind.REGEX, "(", "tools")
    wanted = structs.replace(request(), reading=lambda _opening: Reading(constraint=grammar))
    worker.answers_prepare = False
    stream = front.submit(wanted)
    await until(lambda: len(worker.sent) == 1)
    worker._prepare(worker.sent[0])
    await until(lambda: len(worker.sent) == 2)
    no = worker.sent[1].request
    worker.tell(Refused(worker.epoch, no, "invalid_grammar", "it is refused", "tools"))
    with pytest.raises(InvalidGrammar):
        await whole_texts(stream)
    assert not generates(worker.sent)
    assert front.dispatcher.idle
