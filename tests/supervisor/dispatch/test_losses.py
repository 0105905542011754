"""A loss of a worker, and what becomes of its sequences: the journal that the dashboard shows."""

import pytest

from gpufc.errors import Overloaded
from supervisor.dispatch.job import Stage
from supervisor.dispatch.ledger import Outcome
from supervisor.dispatch.losses import KEEP, Loss
from supervisor.fleet.exit_reason import ExitReason, Reason
from tests.supervisor.dispatch.fakes import KILLED, FakeWorker, request, until
from tests.supervisor.dispatch.front import Front

RESTARTED = ExitReason(reason=Reason.RESTARTED, at=0.0)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def begun(front: Front, *names: str) -> FakeWorker:
    """A worker on which these requests have their first token."""
    worker = front.fleet.start_worker(auto=False)
    for name in names:
        front.submit(request(name, name=name))
    await until(lambda: len(worker.active) == len(names))
    worker.step()
    return worker


async def gone_on(front: Front, n_sequences: int) -> FakeWorker:
    """The next worker, once it has brought each of its sequences a token."""
    worker = front.fleet.start_worker(auto=False)
    await until(lambda: len(worker.active) == n_sequences)
    worker.step()
    return worker


def counts(loss: Loss) -> tuple[int, int, int, int]:
    return loss.n_sequences, loss.n_went_on, loss.n_ended, loss.n_waiting


async def test_sequences_that_go_on_have_the_pause_that_their_clients_saw() -> None:
    clock = Clock()
    front = Front(slots=3, clock=clock)
    worker = await begun(front, "a", "b", "c")
    clock.now = 101.0
    worker.die()
    (loss,) = front.dispatcher.losses.latest
    assert counts(loss) == (3, 0, 0, 3)
    clock.now = 103.5
    await gone_on(front, 3)
    assert counts(loss) == (3, 3, 0, 0)
    assert loss.longest_pause_s == 3.5
    assert {pause.request: (pause.began_at, pause.ended_at) for pause in loss.pauses} == {
        name: (100.0, 103.5) for name in "abc"
    }
    assert (loss.worker, loss.epoch, loss.was_asked) == (worker.name, worker.epoch, False)


async def test_a_sequence_that_ends_while_it_waits_is_counted_as_ended() -> None:
    front = Front(slots=2)
    worker = front.fleet.start_worker(auto=False)
    stream, _ = front.submit(request("a")), front.submit(request("b"))
    await until(lambda: len(worker.active) == 2)
    worker.step()
    worker.die()
    stream.cancel()
    (loss,) = front.dispatcher.losses.latest
    assert counts(loss) == (2, 0, 1, 1)
    front.dispatcher.end_all(Overloaded("stopping", retry_after_s=1.0))
    assert counts(loss) == (2, 0, 2, 0)


async def test_a_second_death_before_the_next_token_has_its_own_account() -> None:
    front = Front()
    worker = await begun(front, "a")
    worker.die()
    second = front.fleet.start_worker(auto=False)
    await until(lambda: second.active)
    second.die()
    await gone_on(front, 1)
    assert [counts(loss) for loss in front.dispatcher.losses.latest] == [
        (1, 0, 1, 0),
        (1, 1, 0, 0),
    ]


@pytest.mark.parametrize(("reason", "was_asked"), [(KILLED, False), (RESTARTED, True)])
async def test_a_replacement_that_was_asked_for_is_no_death(
    reason: ExitReason, was_asked: bool
) -> None:
    front = Front()
    front.fleet.start_worker().die(reason)
    (loss,) = front.dispatcher.losses.latest
    assert (counts(loss), loss.was_asked) == ((0, 0, 0, 0), was_asked)


async def test_the_journal_keeps_the_latest_losses_only() -> None:
    front = Front()
    for _ in range(KEEP + 3):
        front.fleet.start_worker().die()
    losses = front.dispatcher.losses
    assert [one.epoch for one in losses.latest] == list(range(4, KEEP + 4))
    assert losses.n_total == KEEP + 3


async def test_open_requests_tell_their_stage_and_their_worker() -> None:
    front = Front(slots=1)
    worker = await begun(front, "a")
    waiting = front.submit(request("b", name="b"))
    await until(lambda: len(list(front.dispatcher.open_requests())) == 2)
    first, second = front.dispatcher.open_requests()
    assert (first.stream.request.id, first.stage, first.worker) == ("a", Stage.RUNNING, worker.name)
    assert (second.worker, second.is_paused, second.n_replays) == (None, False, 0)
    worker.die()
    assert first.is_paused
    await gone_on(front, 1)
    assert (first.is_paused, first.n_replays) == (False, 1)
    waiting.cancel()
    assert (second.stage, second.outcome) == (Stage.ENDED, Outcome.CANCELLED)
