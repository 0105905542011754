"""From `submit` to the terminal state, over workers that come and go."""

import asyncio
import time
from collections.abc import Callable

import pytest
from msgspec import structs

from gpufc.config import AdmissionConfig
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.errors import (
    ContextLengthExceeded,
    EngineCrashed,
    EngineCrashSuspect,
    EngineUnavailable,
    InternalError,
    InvalidGrammar,
    InvalidRequest,
    Overloaded,
)
from gpufc.ids import Epoch
from gpufc.packed import packed
from gpufc.protocol import (
    Cancel,
    Delta,
    FinishReason,
    Prepare,
    Prepared,
    Refused,
    Step,
    TextPrompt,
)
from supervisor.answers.parts import BEGUN, Ended, Text
from supervisor.dispatch.conversion import to_generate
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.recovery import MAX_OUTAGE_S
from supervisor.dispatch.request import ANONYMOUS, GenerationRequest, Principal, Reading
from supervisor.dispatch.stream import ResponseStream, StreamEvent
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.states import WorkerState
from tests.supervisor.dispatch.fakes import (
    FAILED,
    MODEL,
    FakeFleet,
    FakeWorker,
    generates,
    request,
    text_of,
    tokens_of,
    until,
    whole_texts,
)


class Front:
    """A dispatcher over a fake fleet."""

    def __init__(
        self,
        slots: int = 2,
        queue: int | None = None,
        replicas: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fleet = FakeFleet(replicas=replicas)
        limits = AdmissionConfig(max_concurrent_requests=slots, max_queue=queue)
        self.dispatcher = Dispatcher(self.fleet, limits, clock=clock)
        self.fleet.dispatcher = self.dispatcher

    def submit(
        self, wanted: GenerationRequest | None = None, principal: Principal = ANONYMOUS
    ) -> ResponseStream:
        return self.dispatcher.submit(wanted or request(), principal)

    @property
    def requests(self) -> dict[str, int]:
        counters = self.dispatcher.ledger.requests
        return {name: getattr(counters, name) for name in counters.__struct_fields__}


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


async def test_a_step_may_bring_several_tokens_of_a_sequence_also_after_a_death() -> None:
    front = Front()
    first = front.fleet.start_worker(auto=False)
    first.n_at_once = 3
    stream = front.submit(request(max_tokens=8))
    await until(lambda: first.active)
    first.n_tokens = 100
    first.step()
    assert await stream.next(1.0) == [StreamEvent(0, (BEGUN, Text(text_of("hello", 3))))]
    first.die()
    second = front.fleet.start_worker(auto=False)
    second.n_tokens, second.n_at_once = 100, 4
    await until(lambda: second.active)
    (spec,) = generates(second.sent)
    assert spec.tokens == (0, 1, 2)
    second.step()
    second.step()
    assert await whole_texts(stream) == [text_of("hello", 8)]
    assert stream.usage.completion == 8
    assert front.dispatcher.ledger.tokens.generated == 8


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


async def test_a_sequence_without_a_token_survives_its_worker() -> None:
    front = Front()
    first = front.fleet.start_worker(auto=False)
    stream = front.submit()
    await until(lambda: first.active)
    first.die()
    second = front.fleet.start_worker()
    assert await whole_texts(stream) == [text_of("hello")]
    assert [message.epoch for message in generates(second.sent)] == [second.epoch]
    assert front.requests["replayed"] == 1
    assert front.requests["lost"] == 0


CRASHED = ExitReason(signal=11, reason=Reason.CRASHED, at=0.0)


async def test_a_sequence_goes_on_at_its_position_on_the_next_worker() -> None:
    front = Front()
    worker = front.fleet.start_worker(auto=False)
    stream = front.submit()
    for n in range(3):
        await until(lambda worker=worker: worker.active)
        worker.step()
        worker.step()
        worker.die()
        worker = front.fleet.start_worker(auto=n == 1)
        if n == 1:
            break
    assert await whole_texts(stream) == [text_of("hello")]
    (replayed,) = generates(worker.sent)
    assert list(replayed.tokens) == [0, 1, 2, 3]
    assert stream.usage.completion == 5
    assert (stream.usage.prompt, front.requests["replayed"], front.requests["lost"]) == (5, 2, 0)


async def test_after_a_death_the_shortest_go_on_first_and_before_new_ones() -> None:
    front = Front(slots=3)
    first = front.fleet.start_worker(auto=False)
    for words in ("a long prompt", "mid", "z", "never begun"):
        front.submit(request(words))
    await until(lambda: len(first.active) == 3)
    first.die()
    second = front.fleet.start_worker(auto=False)
    await until(lambda: len(second.active) == 3)
    assert [len(message.prompt_tokens) for message in generates(second.sent)] == [1, 3, 13]


async def test_a_cancelled_request_is_not_replayed() -> None:
    front = Front()
    worker = front.fleet.start_worker(auto=False)
    stream = front.submit()
    await until(lambda: worker.active)
    worker.step()
    stream.cancel()
    worker.die()
    second = front.fleet.start_worker()
    assert generates(second.sent) == []
    assert front.dispatcher.idle


async def test_a_sequence_that_no_worker_comes_for_ends_after_the_longest_outage() -> None:
    now = 0.0
    front = Front(clock=lambda: now)
    worker = front.fleet.start_worker(auto=False)
    stream = front.submit()
    await until(lambda: worker.active)
    worker.die()
    group = front.dispatcher._group(MODEL)
    now = MAX_OUTAGE_S - 1
    group.expire()
    assert stream.error is None
    now = MAX_OUTAGE_S + 1
    group.expire()
    with pytest.raises(EngineCrashed):
        await whole_texts(stream)


async def test_a_load_that_gets_on_is_no_outage() -> None:
    now = 0.0
    front = Front(clock=lambda: now)
    stream = front.submit()
    group = front.dispatcher._group(MODEL)
    front.fleet.state = WorkerState.LOADING
    for _ in range(4):
        now += MAX_OUTAGE_S - 1
        front.dispatcher.condition_changed()
        assert group.expire() == MAX_OUTAGE_S
    assert stream.error is None
    front.fleet.state = WorkerState.STARTING
    now += MAX_OUTAGE_S + 1
    front.dispatcher.condition_changed()
    assert group.expire() is None
    with pytest.raises(EngineUnavailable):
        await whole_texts(stream)


async def test_a_request_that_kills_is_convicted_and_all_others_are_served() -> None:
    front = Front(slots=4, queue=20)
    streams = {word: front.submit(request(word)) for word in ["a", "b", "poison", "c", "d"]}
    poison_tokens = tokens_of(TextPrompt("poison"))
    deaths = 0
    while not all(log.ended for stream in streams.values() for log in stream.logs):
        worker = front.fleet.start_worker(auto=False)
        while not all(log.ended for stream in streams.values() for log in stream.logs):
            await until(lambda worker=worker: worker.active)
            running = [spec for spec, _ in worker.active.values()]
            if any(spec.prompt_tokens == poison_tokens for spec in running):
                worker.die(CRASHED)
                deaths += 1
                break
            worker.step()
            await asyncio.sleep(0)
    assert deaths <= 3
    with pytest.raises(EngineCrashSuspect):
        await whole_texts(streams.pop("poison"))
    for word, stream in streams.items():
        assert await whole_texts(stream) == [text_of(word)]
    with pytest.raises(EngineCrashSuspect):
        front.submit(request("poison"))


async def died_twice_alone(front: Front, stream: ResponseStream) -> FakeWorker:
    """Two workers die over one sequence. Returns the second one."""
    for _ in range(2):
        worker = front.fleet.start_worker(auto=False)
        await until(lambda worker=worker: worker.active)
        worker.die(CRASHED)
    assert stream.error is None
    return worker


async def test_no_request_is_convicted_before_an_engine_has_passed_its_trial() -> None:
    front = Front()
    stream = front.submit(request("poison"))
    second = await died_twice_alone(front, stream)
    front.fleet.start_worker(tried=False)  # a hot spare, which was tried before the deaths
    await until(lambda: front.dispatcher.occupancy.waiting == 1)
    assert stream.error is None
    assert second.n_deaths_explained == 0
    assert await whole_texts(front.submit(request("other"))) == [text_of("other")]
    with pytest.raises(EngineCrashSuspect):  # the other's tokens are evidence
        await whole_texts(stream)
    assert second.n_deaths_explained == 2


async def test_an_engine_that_fails_its_trials_convicts_no_request() -> None:
    front = Front()
    stream = front.submit(request("honest"))
    await died_twice_alone(front, stream)
    front.fleet.change(FAILED)  # as the fleet says after trials that failed
    with pytest.raises(EngineUnavailable, match="it does not load"):
        await whole_texts(stream)
    front.fleet.start_worker()
    assert await whole_texts(front.submit(request("honest"))) == [text_of("honest")]


async def test_an_accused_without_evidence_ends_after_the_longest_outage() -> None:
    now = 0.0
    front = Front(clock=lambda: now)
    stream = front.submit(request("poison"))
    await died_twice_alone(front, stream)
    front.fleet.start_worker(tried=False)
    now = MAX_OUTAGE_S + 1
    front.dispatcher._group(MODEL).expire()
    with pytest.raises(EngineCrashed):
        await whole_texts(stream)
    assert front.dispatcher.idle


async def test_convictions_in_a_row_without_a_token_are_withdrawn() -> None:
    front = Front()
    words = ("one", "two", "three")
    for word in words[:2]:
        stream = front.submit(request(word))
        await died_twice_alone(front, stream)
        front.fleet.start_worker(auto=False).die()
        with pytest.raises(EngineCrashSuspect):
            await whole_texts(stream)
    third = front.submit(request("three"))
    await died_twice_alone(front, third)
    healed = front.fleet.start_worker()
    assert await whole_texts(third) == [text_of("three")]
    assert healed.n_deaths_explained == 0
    for word in words:
        assert await whole_texts(front.submit(request(word))) == [text_of(word)]


@pytest.mark.parametrize("renewed", ["restart", "fingerprint", "failed"])
async def test_the_quarantine_is_emptied_with_the_engine(renewed: str) -> None:
    front = Front()
    stream = front.submit(request("poison"))
    await died_twice_alone(front, stream)
    worker = front.fleet.start_worker()
    with pytest.raises(EngineCrashSuspect):
        await whole_texts(stream)
    with pytest.raises(EngineCrashSuspect):
        front.submit(request("poison"))
    match renewed:
        case "restart":
            front.dispatcher.engine_renewed(MODEL)
        case "fingerprint":
            worker.die()
            front.fleet.start_worker(fingerprint="another")
        case _:
            worker.die()
            front.fleet.change(FAILED)
            front.fleet.start_worker()
    assert await whole_texts(front.submit(request("poison"))) == [text_of("poison")]


async def test_an_accused_whose_client_leaves_is_gone() -> None:
    front = Front()
    stream = front.submit(request("poison"))
    await died_twice_alone(front, stream)
    stream.cancel()
    assert front.dispatcher.idle
    front.fleet.start_worker()
    assert await whole_texts(front.submit(request("poison"))) == [text_of("poison")]


async def test_a_sequence_that_dies_again_and_again_of_kills_from_outside_ends() -> None:
    front = Front()
    stream = front.submit()
    for _ in range(4):
        worker = front.fleet.start_worker(auto=False)
        await until(lambda worker=worker: worker.active)
        worker.die()
    with pytest.raises(EngineCrashed):
        await whole_texts(stream)
    assert front.requests["lost"] == front.requests["failed"] == 1


async def test_a_running_stream_is_not_charged_with_what_was_being_prepared() -> None:
    front = Front()
    first = front.fleet.start_worker(auto=False)
    running = front.submit(request("story"))
    await until(lambda: first.active)
    first.answers_prepare = False
    poison = front.submit(request("poison"))
    worker = first
    for _ in range(2):
        await until(lambda worker=worker: any(isinstance(one, Prepare) for one in worker.sent))
        assert len(worker.active) == (worker is first)  # nothing runs beside a trial
        worker.die(CRASHED)
        worker = front.fleet.start_worker(auto=False)
        worker.answers_prepare = False
    with pytest.raises(EngineCrashSuspect):
        await poison.complete()
    await until(lambda: worker.active)
    worker.auto = True
    worker.go()
    assert await whole_texts(running) == [text_of("story")]


async def test_prompts_that_were_open_at_a_death_are_asked_again_alone() -> None:
    front = Front()
    worker = front.fleet.start_worker()
    worker.answers_prepare = False
    streams = [front.submit(request(text)) for text in ("one", "two")]
    await until(lambda: len(worker.sent) == 2)
    worker.die(CRASHED)
    again = front.fleet.start_worker()
    again.answers_prepare = False
    await until(lambda: again.sent)
    (asked,) = again.sent
    assert isinstance(asked, Prepare)
    again.answers_prepare = True
    again.tell(Prepared(again.epoch, asked.request, packed(tokens_of(asked.prompt))))
    for stream, text in zip(streams, ("one", "two"), strict=True):
        assert await whole_texts(stream) == [text_of(text)]


async def test_a_prompt_whose_client_leaves_is_no_longer_prepared() -> None:
    front = Front()
    worker = front.fleet.start_worker()
    worker.answers_prepare = False
    stream = front.submit()
    await until(lambda: worker.sent)
    stream.cancel()
    assert worker.sent[-1] == Cancel(worker.epoch, stream.logs[0].no)


async def test_what_is_only_being_prepared_goes_to_the_next_worker() -> None:
    front = Front()
    worker = front.fleet.start_worker()
    worker.answers_prepare = False
    stream = front.submit()
    await until(lambda: worker.sent)
    worker.die()
    front.fleet.start_worker()
    assert await whole_texts(stream) == [text_of("hello")]
    assert front.requests["replayed"] == 0


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
    asked = asyncio.create_task(front.dispatcher.prepare(MODEL, TextPrompt("ab")))
    await asyncio.sleep(0)
    worker = front.fleet.start_worker()
    worker.answers_prepare = False
    await until(lambda: worker.sent)
    worker.die()
    front.fleet.start_worker()
    assert tuple(await asked) == (97, 98)
    assert await front.dispatcher.detokenize(MODEL, [(97,), (98, 99)]) == [b"a", b"bc"]


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
