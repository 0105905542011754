"""Streams while the model behind them is changed."""

from msgspec import structs

from gpufc.errors import EngineCrashed
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Generate, Prepare
from gpufc.sampling import SamplingParams
from supervisor.dispatch.request import Reading
from supervisor.dispatch.stream import ResponseStream
from supervisor.fleet.exit_reason import ExitReason, Reason
from tests.supervisor.dispatch.fakes import (
    MODEL,
    FakeWorker,
    generates,
    request,
    text_of,
    tokens_of,
    until,
    whole_texts,
)
from tests.supervisor.dispatch.front import Front

SWAPPED = ExitReason(reason=Reason.SWAPPED, at=0.0)


async def text(stream: ResponseStream) -> str:
    (whole,) = await whole_texts(stream)
    return whole


async def begun(front: Front, worker: FakeWorker, prompt: str = "begun") -> ResponseStream:
    """A stream that has a token."""
    stream = front.submit(request(prompt))
    await until(lambda: worker.active)
    worker.step()
    return stream


async def test_what_has_begun_ends_on_the_old_model_and_new_work_runs_on_the_new_one() -> None:
    front = Front(slots=1)
    old = front.fleet.start_worker(auto=False)
    stream = await begun(front, old)
    new = front.fleet.start_worker(line=2, fingerprint="other")
    front.dispatcher.worker_draining(old)
    later = front.submit(request("later"))
    assert await text(later) == text_of("later")
    assert later.fingerprint == "other"
    assert old.n_drained == 0
    old.auto = True
    old.go()
    assert await text(stream) == text_of("begun")
    assert stream.fingerprint == "abc123"
    assert old.n_drained == 1
    assert [spec.prompt_tokens for spec in generates(new.sent)] == [tokens_of_text("later")]


async def test_what_waits_is_prepared_anew_by_the_new_model() -> None:
    front = Front(slots=1)
    old = front.fleet.start_worker(auto=False)
    stream = await begun(front, old)
    waiting = front.submit(request("waiting"))
    n_prompt = len("begun") + len("waiting")
    await until(lambda: front.dispatcher.ledger.tokens.prompt == n_prompt)
    new = front.fleet.start_worker(line=2, fingerprint="other")
    front.dispatcher.worker_draining(old)
    assert await text(waiting) == text_of("waiting")
    assert any(isinstance(message, Prepare) for message in new.sent)
    assert front.dispatcher.ledger.tokens.prompt == n_prompt
    old.auto = True
    old.go()
    await text(stream)


async def test_an_answer_is_read_as_the_model_that_wrote_it_writes() -> None:
    """The reading asks for the model's template, which is another one after a swap."""
    front = Front(slots=1)
    old = front.fleet.start_worker(auto=False)

    def reading(_opening: str) -> Reading:
        facts = front.dispatcher.facts(MODEL)
        return Reading(spelt=(facts.fingerprint if facts else "",))

    streams = []
    for prompt in ("begun", "waiting"):
        streams.append(front.submit(structs.replace(request(prompt), reading=reading)))
        await until(lambda: old.active)
    old.step()
    front.fleet.start_worker(line=2, fingerprint="other")
    front.dispatcher.worker_draining(old)
    old.auto = True
    old.go()
    for stream in streams:
        await text(stream)
    assert [stream.logs[0].reading.spelt for stream in streams] == [("abc123",), ("other",)]


async def test_a_draining_line_that_dies_gets_its_streams_back() -> None:
    front = Front()
    old = front.fleet.start_worker(auto=False)
    stream = await begun(front, old)
    front.fleet.start_worker(line=2, fingerprint="other")
    front.dispatcher.worker_draining(old)
    old.die()
    assert old.n_drained == 0
    again = front.fleet.start_worker(line=1)
    front.dispatcher.worker_draining(again)
    assert await text(stream) == text_of("begun")
    assert (old.n_drained, again.n_drained) == (0, 1)


async def test_a_line_with_nothing_on_it_is_drained_at_once() -> None:
    front = Front()
    old = front.fleet.start_worker()
    assert await text(front.submit()) == text_of("hello")
    front.dispatcher.worker_draining(old)
    assert old.n_drained == 1


async def test_stop_first_new_work_waits_for_the_new_model() -> None:
    front = Front()
    old = front.fleet.start_worker(auto=False)
    stream = await begun(front, old)
    front.dispatcher.worker_draining(old)
    later = front.submit(request("later"))
    old.auto = True
    old.go()
    assert await text(stream) == text_of("begun")
    assert old.n_drained == 1
    assert not later.ended
    old.die(SWAPPED)
    front.fleet.start_worker(line=2, fingerprint="other")
    assert await text(later) == text_of("later")


async def test_a_changed_model_file_cannot_go_on_with_sequences_of_the_old_one() -> None:
    front = Front()
    old = front.fleet.start_worker(auto=False)
    stream = await begun(front, old)
    old.die()
    front.fleet.start_worker(line=1, fingerprint="other")
    assert isinstance(stream.error, EngineCrashed)
    assert "changed" in str(stream.error)


async def test_what_had_not_begun_goes_on_with_a_changed_model() -> None:
    front = Front()
    old = front.fleet.start_worker(auto=False)
    stream = front.submit()
    await until(lambda: old.active)
    old.die()
    front.fleet.start_worker(line=1, fingerprint="other")
    assert await text(stream) == text_of("hello")


async def test_a_sequence_of_another_front_goes_on_where_it_was() -> None:
    front = Front()
    worker = front.fleet.start_worker()
    prompt = tokens_of_text("hello")
    sampling = SamplingParams(seed=1)
    stream = front.dispatcher.resume(
        MODEL,
        Generate(
            Epoch(9),
            RequestNo(77),
            RequestId("r"),
            1,
            prompt,
            sampling,
            tokens=(0, 1),
            max_tokens=4,
        ),
    )
    assert await text(stream) == text_of("hello", 4, choice=1)[len(text_of("hello", 2)) :]
    (sent,) = generates(worker.sent)
    assert (sent.tokens, sent.choice, sent.prompt_tokens) == ((0, 1), 1, prompt)
    durations = front.dispatcher.ledger.totals()[MODEL].durations
    counted = {kind: found.n_durations for kind, found in durations.items()}
    # the other front has counted its first token and its wait
    assert counted == {
        "time_to_first_token": 0,
        "inter_token": 1,
        "request": 1,
        "queue": 0,
        "resume_gap": 1,
    }


def tokens_of_text(prompt: str) -> tuple[int, ...]:
    return tokens_of(request(prompt).prompts[0])
