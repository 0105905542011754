"""The old front's dispatch over the relay to the new front's: both real, over fake workers."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from gpufc.chat import ChatMessage, ChatPrompt
from gpufc.config import AdmissionConfig
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.errors import EngineUnavailable, InternalError, InvalidRequest
from gpufc.ids import Epoch
from gpufc.protocol import Cancel, Delta, Embed, LogprobsWanted, Prepare, Step, TextPrompt
from supervisor.dispatch import asking
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.embedding import PIECE_INPUTS, EmbeddingRequest
from supervisor.dispatch.embedding_turns import MAX_REQUESTS
from supervisor.dispatch.request import ANONYMOUS, GenerationRequest
from supervisor.dispatch.stream import ResponseStream
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.handover.relay import Relay
from supervisor.handover.remote import RemoteFleet, RemoteWorker
from tests.supervisor.dispatch.fakes import (
    FAILED,
    KILLED,
    MODEL,
    N_TOKENS,
    FakeFleet,
    FakeWorker,
    text_of,
    until,
    whole_texts,
)
from tests.supervisor.dispatch.fakes import request as wanted

HANDED_OVER = ExitReason(reason=Reason.HANDED_OVER, at=0.0)
REMOTE = Epoch(50)


class Fronts:
    """An old front and a new one. `hand_over` has the effect of `Go`, without processes."""

    def __init__(self, *, places: int = 10) -> None:
        limits = AdmissionConfig(max_concurrent_requests=places)
        self.old_fleet, self.new_fleet = FakeFleet(), FakeFleet()
        self.old = self.old_fleet.dispatcher = Dispatcher(self.old_fleet, limits)
        self.new = self.new_fleet.dispatcher = Dispatcher(self.new_fleet, limits)
        self.before = self.old_fleet.start_worker(auto=False)
        self.relay = Relay(self.new, {REMOTE: MODEL})
        self.remote = RemoteFleet(
            self.old,
            [RemoteWorker(self.before, REMOTE)],
            lambda: self.old_fleet.change(FAILED),
        )

    async def hand_over(self, *, auto: bool = True) -> FakeWorker:
        """Returns the new front's worker."""
        ours, theirs = socket.socketpair()
        await self.remote.open(ours)
        self.before.lost = True
        self.old.worker_lost(self.before, HANDED_OVER)
        self.remote.begin()
        after = self.new_fleet.start_worker(auto=auto)
        await self.relay.open(theirs)
        return after

    def submit(self, *prompts: str, n: int = 1) -> ResponseStream:
        return self.old.submit(wanted(*prompts, n=n), ANONYMOUS)

    async def began(self, *streams: ResponseStream) -> None:
        """Let each have two tokens on the old worker."""
        await until(lambda: len(self.before.active) == sum(len(stream.logs) for stream in streams))
        self.before.step()
        self.before.step()


@pytest.fixture
async def fronts(request: pytest.FixtureRequest) -> AsyncIterator[Fronts]:
    made = Fronts(places=getattr(request, "param", 10))
    yield made
    made.remote.close()
    await until(lambda: made.remote.lost and made.relay.ended.is_set())


async def test_sequences_go_on_where_they_were(fronts: Fronts) -> None:
    streams = [fronts.submit("one"), fronts.submit("two", n=2)]
    await fronts.began(*streams)
    after = await fronts.hand_over()
    assert await whole_texts(streams[0]) == [text_of("one")]
    assert await whole_texts(streams[1]) == [text_of("two"), text_of("two", choice=1)]
    (spec, _), *_ = [(m, None) for m in after.sent if type(m).__name__ == "Generate"]
    assert len(spec.tokens) == 2
    assert streams[0].usage.completion == N_TOKENS


async def test_log_probabilities_come_over_the_relay(fronts: Fronts) -> None:
    (whole,) = await _alone().complete()
    begun = fronts.old.submit(scored(), ANONYMOUS)
    await fronts.began(begun)
    await fronts.hand_over()
    late = fronts.old.submit(scored(), ANONYMOUS)
    for stream in (begun, late):
        (answer,) = await stream.complete()
        assert answer.logprobs == whole.logprobs
        assert answer.prompt_logprobs == whole.prompt_logprobs


async def test_a_sampler_s_state_comes_over_the_relay(fronts: Fronts) -> None:
    """The old front goes on alone with it where the new one ends."""
    stream = fronts.submit("one")
    await fronts.began(stream)
    after = await fronts.hand_over(auto=False)
    await until(lambda: after.active)
    (new,) = after.active
    (old,) = stream.logs
    after.tell(Step(after.epoch, 1, (Delta(new, 2, (65,), "a", sampler_state=(4.5,)),)))
    await until(lambda: len(old.tokens) == 3)
    assert old.sampler_state == (4.5,)


def scored() -> GenerationRequest:
    return wanted(logprobs=LogprobsWanted(1, prompt=True))


def _alone() -> ResponseStream:
    """The same request at a front that nothing happens to."""
    fleet = FakeFleet()
    fleet.dispatcher = Dispatcher(fleet, AdmissionConfig())
    fleet.start_worker()
    return fleet.dispatcher.submit(scored(), ANONYMOUS)


async def test_new_requests_of_old_connections_are_prepared_and_run(fronts: Fronts) -> None:
    await fronts.hand_over()
    assert await whole_texts(fronts.submit("late")) == [text_of("late")]
    prompt = ChatPrompt((ChatMessage("user", "hi"),))
    assert tuple(await fronts.old.asking.prepare(MODEL, prompt)) == tuple(b"<user>hi")
    assert await fronts.old.asking.detokenize(MODEL, [(65, 66)]) == [b"AB"]


async def test_a_death_at_the_new_front_is_only_a_pause(fronts: Fronts) -> None:
    stream = fronts.submit("one")
    await fronts.began(stream)
    after = await fronts.hand_over(auto=False)
    await until(lambda: after.active)
    after.step()
    after.lost = True
    fronts.new.worker_lost(after, KILLED)
    fronts.new_fleet.start_worker()
    assert await whole_texts(stream) == [text_of("one")]


@pytest.mark.parametrize("fronts", [1], indirect=True)
async def test_a_full_queue_at_the_new_front_refuses_nothing_of_the_old_one(
    fronts: Fronts,
) -> None:
    stream = fronts.submit("one")
    await fronts.began(stream)
    fronts.new_fleet.start_worker(auto=True)
    own = [fronts.new.submit(wanted("own"), ANONYMOUS) for _ in range(9)]
    await fronts.hand_over()
    assert await whole_texts(stream) == [text_of("one")]
    assert [await whole_texts(each) for each in own] == [[text_of("own")]] * 9


async def test_a_client_that_leaves_the_old_front_leaves_the_new_one(fronts: Fronts) -> None:
    stream = fronts.submit("one")
    await fronts.began(stream)
    after = await fronts.hand_over(auto=False)
    await until(lambda: after.active)
    stream.cancel()
    async with asyncio.timeout(60):
        await fronts.old.wait_until(lambda: fronts.old.idle)
    assert not after.active
    assert len(fronts.relay) == 0


async def test_errors_arrive_with_their_kind(fronts: Fronts) -> None:
    stream = fronts.submit("one")
    await fronts.began(stream)
    await fronts.hand_over(auto=False)
    with pytest.raises(InvalidRequest):
        await fronts.old.asking.prepare(MODEL, TextPrompt("x" * 10_000))
    await until(lambda: len(fronts.relay))
    fronts.new.end_all(InternalError("it went wrong"))
    with pytest.raises(InternalError, match="it went wrong"):
        await whole_texts(stream)


async def test_without_the_new_front_everything_ends_at_once(fronts: Fronts) -> None:
    stream = fronts.submit("one")
    await fronts.began(stream)
    await fronts.hand_over(auto=False)
    fronts.relay.close()
    with pytest.raises(EngineUnavailable):
        await whole_texts(stream)
    assert fronts.remote.lost


async def test_the_end_of_the_old_front_frees_its_places(fronts: Fronts) -> None:
    stream = fronts.submit("one")
    await fronts.began(stream)
    await fronts.hand_over(auto=False)
    await until(lambda: len(fronts.relay))
    fronts.remote.close()
    async with asyncio.timeout(60):
        await fronts.relay.ended.wait()
        await fronts.new.wait_until(lambda: fronts.new.idle)


async def test_inputs_of_the_old_front_are_embedded_by_the_new_one(fronts: Fronts) -> None:
    fronts.before.answers_embed = False
    asked = EmbeddingRequest(model=MODEL, inputs=(TextPrompt("one"), TextPrompt("three")))
    answer = asyncio.create_task(fronts.old.asking.embed(asked))
    await until(lambda: fronts.before.sent)
    await fronts.hand_over()
    assert [one.n_tokens for one in await answer] == [3, 5]


async def test_no_request_to_embed_is_refused_for_the_number_of_its_pieces(
    fronts: Fronts,
) -> None:
    """Each piece of a request is one for the new front."""
    fronts.before.answers_embed = False
    inputs = tuple(map(TextPrompt, "abc" * PIECE_INPUTS))
    asked = EmbeddingRequest(model=MODEL, inputs=inputs)
    n_requests = MAX_REQUESTS // 2
    answers = [asyncio.create_task(fronts.old.asking.embed(asked)) for _ in range(n_requests)]
    await until(lambda: len(fronts.before.sent) == 3 * n_requests)
    await fronts.hand_over()
    assert {len(await answer) for answer in answers} == {len(inputs)}


async def test_an_embedding_that_the_old_front_gives_up_is_given_up_here(fronts: Fronts) -> None:
    fronts.before.answers_embed = False
    asked = EmbeddingRequest(model=MODEL, inputs=(TextPrompt("one"),))
    answer = asyncio.create_task(fronts.old.asking.embed(asked))
    await until(lambda: fronts.before.sent)
    after = await fronts.hand_over()
    after.answers_embed = False
    await until(lambda: any(isinstance(message, Embed) for message in after.sent))
    answer.cancel()
    await until(lambda: any(isinstance(message, Cancel) for message in after.sent))
    await until(lambda: fronts.new.idle)


async def test_the_old_front_s_questions_keep_their_constraint_and_need_no_room(
    fronts: Fronts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MAX_QUESTIONS", 0)
    fronts.before.answers_prepare = False
    grammar = Constraint(ConstraintKind.REGEX, "a+", "regex")
    stream = fronts.old.submit(structs.replace(wanted("one"), constraint=grammar), ANONYMOUS)
    await until(lambda: fronts.before.sent)
    after = await fronts.hand_over()
    assert await whole_texts(stream) == [text_of("one")]
    (asked,) = [message for message in after.sent if isinstance(message, Prepare)]
    assert asked.constraint == grammar
