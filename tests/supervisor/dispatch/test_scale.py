"""A thousand workers: the work for one request does not grow with them, nor with what waits."""

import pytest

from gpufc.config import Routing
from gpufc.errors import Overloaded
from gpufc.ids import WorkerName
from supervisor.dispatch.pool import WorkerPool
from supervisor.routing.port import Arrival
from tests.growth import calls
from tests.supervisor.dispatch.fakes import FakeWorker, generates, request, until
from tests.supervisor.dispatch.front import Front

FEW, MANY = 40, 1000
SLOTS = 2
MOST_CALLS = 200
"""Of two choices with their accounts. The bar is 50 µs a choice; a call takes 0.1 to 0.2 µs."""
MOST_MORE = 40
"""More calls than with few workers: heaps are deeper, and old entries come up."""


class Cluster(Front):
    """A front with so many free workers, each in a place of its own."""

    def __init__(self, n_workers: int, queue: int = 5000) -> None:
        super().__init__(slots=SLOTS, queue=queue, replicas=n_workers)
        rows = self.fleet.workers()
        self.fleet.workers = lambda: rows  # type: ignore[method-assign]
        self.workers: list[FakeWorker] = []
        for _ in range(n_workers):
            self.add_worker("abc123")

    def add_worker(self, fingerprint: str) -> FakeWorker:
        no = len(self.workers) + 1
        worker = self.fleet.start_worker(auto=False, line=no, fingerprint=fingerprint, tried=False)
        self.workers.append(worker)
        return worker

    @property
    def n_active(self) -> int:
        return sum(len(worker.active) for worker in self.workers if not worker.lost)

    async def fill(self, n: int) -> None:
        """So many sequences run, and each has a token."""
        for _ in range(n):
            self.submit()
        await until(lambda: self.n_active == n)
        for worker in self.workers:
            worker.step()


def pool_of(n_workers: int, routing: Routing) -> tuple[WorkerPool, list[FakeWorker]]:
    pool, fleet = WorkerPool(SLOTS, routing), Front().fleet
    workers = [FakeWorker(fleet, no, line=no) for no in range(1, n_workers + 1)]
    for worker in workers:
        worker.name = WorkerName(f"default-{worker.line}")
        pool.add(worker)
    return pool, workers


@pytest.mark.parametrize("routing", sorted(Routing))
def test_a_choice_and_its_accounts_do_not_look_at_all_workers(routing: Routing) -> None:
    pool, _ = pool_of(MANY, routing)
    arrival = Arrival(tuple(range(1000)), 0, "scope")

    def one() -> None:
        worker = pool.with_room(None, arrival, "default-777")
        assert worker is not None
        pool.took(worker, arrival)
        pool.prefilled(worker, 1000)
        again = pool.with_room("abc123", arrival)
        assert again is not None
        asked = pool.least_busy()
        assert asked is not None
        pool.asked(asked)
        assert pool.idle("abc123") is not worker
        assert pool.has_open("abc123")
        assert not pool.has("another")
        pool.gave_back(worker, 0)

    one()
    assert calls(one) <= MOST_CALLS


@pytest.mark.parametrize("routing", sorted(Routing))
def test_a_pool_without_room_says_so_at_once(routing: Routing) -> None:
    pool, workers = pool_of(MANY, routing)
    arrival = Arrival((1, 2, 3), 0, "scope")
    for worker in workers * SLOTS:
        pool.took(worker, arrival)
    for worker in workers[: MANY // 2]:
        pool.drain(worker)
    assert pool.with_room("abc123", arrival) is None
    assert pool.n_beside == MANY // 2 * SLOTS
    assert not pool.has_any_room
    assert calls(lambda: pool.with_room("abc123", arrival, "default-777")) <= MOST_CALLS
    assert calls(lambda: pool.n_beside) <= MOST_CALLS
    pool.gave_back(workers[3], 0)
    assert pool.with_room("abc123", arrival) is workers[3]


async def test_a_request_costs_as_much_among_many_workers_as_among_few() -> None:
    costs = []
    for n_workers in (FEW, MANY):
        cluster = Cluster(n_workers)
        await cluster.fill(n_workers)
        cluster.submit()  # old entries come up once
        submitted = calls(cluster.submit)
        await until(lambda cluster=cluster, n=n_workers: cluster.n_active == n + 2)
        busy = cluster.workers[-1]
        busy.n_tokens = 2
        stepped = calls(busy.step)
        assert not busy.active
        costs.append((submitted, stepped))
    (few_submit, few_step), (many_submit, many_step) = costs
    assert many_submit <= few_submit + MOST_MORE
    assert many_step <= few_step + MOST_MORE


@pytest.mark.parametrize("swaps", [False, True])
async def test_replays_that_find_no_worker_are_not_looked_at_for_each_request(swaps: bool) -> None:
    costs = []
    for n_lost in (4, 80):
        cluster = Cluster(160)
        await cluster.fill(160 * SLOTS)
        lost, kept = cluster.workers[:n_lost], cluster.workers[n_lost:]
        if swaps:  # the replays may not run on the new model's workers, which have room
            for worker in kept:
                cluster.dispatcher.worker_draining(worker)
            for _ in range(3):
                cluster.add_worker("other")
        for worker in lost:
            worker.die()
        assert cluster.dispatcher.occupancy.waiting == n_lost * SLOTS
        cluster.submit()  # old entries come up once
        costs.append(calls(cluster.submit))
        kept[0].n_tokens = 2
        kept[0].step()
        assert cluster.dispatcher.occupancy.waiting == (n_lost - 1) * SLOTS + 2
    assert costs[1] <= costs[0] + MOST_MORE


async def test_streams_that_wait_for_their_model_go_on_when_it_has_room() -> None:
    cluster = Cluster(4)
    await cluster.fill(4 * SLOTS)
    old = cluster.workers[:4]
    for worker in old:
        cluster.dispatcher.worker_draining(worker)
    new = cluster.add_worker("other")
    for worker in old[:3]:
        worker.die()
    later = cluster.submit(request("later"))
    await until(lambda: new.active)
    old[3].auto = True
    old[3].go()
    new.auto = True
    new.go()
    await later.complete()
    await until(lambda: cluster.dispatcher.idle)
    assert cluster.requests["succeeded"] == 4 * SLOTS + 1
    assert len(generates(old[3].sent)) == 4 * SLOTS
    assert old[3].n_drained == 1


async def test_a_refusal_does_not_count_all_that_is_left_to_do() -> None:
    costs = []
    for n_workers in (10, 100):
        cluster = Cluster(n_workers, queue=1)
        await cluster.fill(n_workers * SLOTS)
        cluster.submit()

        def refused(cluster: Cluster = cluster) -> None:
            with pytest.raises(Overloaded):
                cluster.submit(request(name="one too many"))

        refused()
        costs.append(calls(refused))
    assert costs[1] <= costs[0] + MOST_MORE


async def test_questions_go_to_the_workers_in_turn() -> None:
    cluster = Cluster(4)
    for _ in range(8):
        await cluster.dispatcher.asking.detokenize("fake-model", [[65]])
    assert [len(worker.sent) for worker in cluster.workers] == [2, 2, 2, 2]
