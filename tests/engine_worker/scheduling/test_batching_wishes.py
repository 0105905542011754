"""A policy's wishes change when a sequence is computed, and starve none."""

from msgspec import structs

from engine_worker.text.sequence import Sequence
from gpufc.config import Replay
from gpufc.protocol import MIN_CHUNK, Batching
from tests.engine_worker.scheduling.mixed_planner import add, scheduler, step
from tests.engine_worker.text.sequences import sequence, spec


def wished(
    request: int,
    prompt: int,
    later: int = 0,
    chunk_tokens: int | None = None,
    *,
    tokens: tuple[int, ...] = (),
    replay: Replay = Replay.FAST,
    regex: str = "",
) -> Sequence:
    plain = spec(request, prompt, tokens=tokens, replay=replay)
    return sequence(structs.replace(plain, batching=Batching(later, chunk_tokens)), regex=regex)


def test_a_prompt_is_computed_earlier_or_later_than_its_length_says() -> None:
    firsts = []
    for wishes in ((0, 0, 0), (1, 0, 0), (0, 0, -1)):
        planner = scheduler(batch_tokens=6)
        lengths = (6, 8, 20)
        add(planner, *(wished(n, lengths[n - 1], wishes[n - 1]) for n in (1, 2, 3)))
        firsts.append([request for request, _, _ in step(planner)])
    assert firsts == [[1], [2], [3]]


def test_even_a_prompt_that_is_put_back_is_computed_while_others_keep_coming() -> None:
    planner = scheduler(max_running=4, batch_tokens=8)
    last = wished(1, 8, later=10)
    add(planner, last)
    for request in range(2, 40):
        other = wished(request, 8, later=-10)
        add(planner, other)
        step(planner)
        if last.n_computed:
            return
        planner.finish(other)
    raise AssertionError("it starves")


def test_a_prompt_takes_no_more_of_a_step_than_it_may_beside_a_stream() -> None:
    planner = scheduler(batch_tokens=32)
    long = wished(2, 60, chunk_tokens=MIN_CHUNK)
    add(planner, long)
    assert step(planner) == [(2, 32, False)]  # no stream runs
    add(planner, wished(1, 2))
    assert step(planner) == [(1, 2, True), (2, 28, True)]
    add(planner, wished(3, 30, chunk_tokens=MIN_CHUNK), wished(4, 6))
    assert step(planner) == [(1, 1, True), (2, 1, True), (3, 8, False), (4, 6, True)]


def test_a_forced_opening_is_no_answer_that_has_begun() -> None:
    planner = scheduler(batch_tokens=32)
    add(planner, wished(1, 2))
    step(planner)
    add(planner, wished(2, 20, chunk_tokens=MIN_CHUNK, regex="opening[a-z]*"))
    assert step(planner) == [(1, 1, True), (2, MIN_CHUNK, False)]


def test_an_answer_that_has_begun_and_an_exact_replay_are_not_held_up() -> None:
    for held in (
        wished(2, 20, chunk_tokens=MIN_CHUNK, tokens=(98, 99)),
        wished(2, 22, chunk_tokens=MIN_CHUNK, replay=Replay.EXACT),
    ):
        planner = scheduler(batch_tokens=32)
        add(planner, wished(1, 2))
        step(planner)
        add(planner, held)
        assert step(planner) == [(1, 1, True), (2, 22, True)]


def test_the_sequence_that_came_last_by_the_policy_gives_its_cells_up_first() -> None:
    planner = scheduler(batch_tokens=32)
    add(planner, wished(1, 4, later=5), wished(2, 4), wished(3, 4, later=-2))
    step(planner)
    for expected in (1, 2):
        while planner.slots.give_up_something():
            pass
        planner.make_room()
        assert planner.waiting[0].request == expected
