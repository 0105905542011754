"""The next step of a device begins before the tokens of a step are accepted, and changes none."""

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from engine_worker.backend.fake.vocabulary import EOS, expected_tokens
from engine_worker.backend.port import Batch
from engine_worker.kv.edits import CellPosition
from engine_worker.prompts.embedding_inputs import Wanted
from engine_worker.scheduling.placeholders import PlaceholderSlots
from engine_worker.speculation.prompt_lookup import PromptLookup
from engine_worker.tuning import H100
from gpufc.adapters import AdapterUse
from gpufc.errors import DecodeFailed, OutOfCells
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Cancel, EngineFailed, Generate, LogprobsWanted, TokenRules
from tests.engine_worker.engine.engine_runs import EngineRun
from tests.engine_worker.engine.recorded_device import N_STREAMS, Recorded, device, prompt
from tests.engine_worker.text.sequences import spec

N_TOKENS = 40


class AheadRun(EngineRun):
    """Counts the batches that begin before their tokens are accepted."""

    def __init__(self, fake: Recorded, **options: Any) -> None:
        super().__init__(fake, max_running=N_STREAMS, batch_tokens=256, **options)
        self.fake = fake
        self.n_ahead = 0
        self.on_begin: Callable[[bool], None] = lambda is_ahead: None
        begin = fake.begin

        def watched(batch: Batch) -> None:
            is_ahead = self.is_ahead(batch)
            self.on_begin(is_ahead)
            begin(batch)
            self.n_ahead += is_ahead

        fake.begin = watched  # type: ignore[method-assign]

    def is_ahead(self, batch: Batch) -> bool:
        """Whether a sequence does not have the token yet that the batch computes."""
        known = {seq.slot: len(seq.tokens) for seq in self.engine.scheduler.running}
        ends = zip(batch.sequences, batch.positions, strict=True)
        return any(position >= known.get(slot, position + 1) for slot, position in ends)

    @property
    def n_in_vain(self) -> int:
        """Batches that were computed and belong to no step."""
        return len(self.fake.batches) - self.engine._step

    def step(self) -> None:
        self.engine.take_requests()
        self.engine.run_step()

    def until_ahead(self) -> None:
        """Run until a step is begun ahead."""
        before = self.n_ahead
        while self.n_ahead == before:
            self.step()


def asked(number: int, n_tokens: int = N_TOKENS, n_words: int = 2, **fields: Any) -> Generate:
    made = spec(number, prompt(f"request {number} " * n_words), max_tokens=n_tokens)
    return msgspec.structs.replace(made, **fields)


def check(run: EngineRun, *requests: Generate) -> None:
    for one in requests:
        wanted = expected_tokens(one.prompt_tokens, one.max_tokens or 0, one.adapters)
        assert run.tokens(one.request) == [token for token in wanted if token != EOS]


def test_most_steps_of_streams_begin_ahead_with_the_same_tokens() -> None:
    run, requests = AheadRun(device()), [asked(n) for n in range(1, 9)]
    run.run(*requests)
    assert run.n_ahead > 0.8 * N_TOKENS
    check(run, *requests)


def cpu() -> Recorded:
    """A CPU that leaves a core to the engine thread."""
    fake = device()
    facts = {"asynchronous": False, "n_gpu_layers": 0, "computes_beside": True}
    fake.facts = msgspec.structs.replace(fake.facts, **facts)
    return fake


@pytest.mark.parametrize("drafter", [None, PromptLookup])
@pytest.mark.parametrize("processor", [device, cpu])
@pytest.mark.parametrize("seed", range(5))
def test_no_step_is_computed_in_vain_however_requests_come_and_go(
    seed: int, processor: Callable[[], Recorded], drafter: Callable[[], PromptLookup] | None
) -> None:
    fake, dice = processor(), random.Random(seed)
    run = AheadRun(fake, drafter=drafter and drafter())
    run.fix_costs(0.006, 1e-3)  # so that prompts come in pieces, and wait for each other
    requests = [
        asked(n, dice.randint(1, N_TOKENS), n_words=dice.choice([1, 30])) for n in range(40)
    ]
    left = list(requests)

    def come() -> None:
        while left and dice.random() < 0.2:
            run.engine.inbox.put(left.pop())

    while left:
        come()
        run.run(between=come)
    assert run.n_ahead
    assert run.n_in_vain == 0
    check(run, *requests)


@pytest.mark.parametrize("n_streams", [1, 3, 8])
@pytest.mark.parametrize("has_drafter", [True, False])
def test_a_cpu_with_a_free_core_begins_ahead_with_the_same_tokens(
    n_streams: int, has_drafter: bool
) -> None:
    run = AheadRun(cpu(), drafter=PromptLookup() if has_drafter else None)
    run.fix_costs(0.006, 1e-3)
    requests = [asked(n) for n in range(1, 1 + n_streams)]
    run.run(*requests)
    assert run.n_ahead > 0.5 * N_TOKENS  # drafts may save some of the steps
    check(run, *requests)


@pytest.mark.parametrize("facts", [{"asynchronous": False}, {"n_layers": 4}, {"can_cut": False}])
def test_only_a_device_with_all_layers_begins_steps_ahead(facts: dict[str, Any]) -> None:
    fake = device()
    fake.facts = msgspec.structs.replace(fake.facts, **facts)
    run, requests = AheadRun(fake), [asked(n) for n in range(1, 4)]
    run.run(*requests)
    assert not run.n_ahead
    check(run, *requests)


HINDRANCES: dict[str, dict[str, Any]] = {
    "a stop string": {"stop": ("zzzz",)},
    "a stop token": {"rules": TokenRules(stop=(5,))},
    "log probabilities": {"logprobs": LogprobsWanted(1, False, False)},
}


@pytest.mark.parametrize("fields", HINDRANCES.values(), ids=HINDRANCES)
def test_no_step_is_begun_ahead_of_a_sequence_that(fields: dict[str, Any]) -> None:
    run, hindered, free = AheadRun(device()), asked(1, 20, **fields), asked(2, N_TOKENS)
    n_ahead: list[int] = []

    def note() -> None:
        if run.engine.scheduler.find(hindered.request) is not None:
            n_ahead.append(run.n_ahead)

    run.run(hindered, free, between=note)
    assert n_ahead[-1] == 0
    assert run.n_ahead
    check(run, hindered, free)


@pytest.mark.parametrize("n_waiting", [0, 5])
def test_a_stream_that_a_stop_string_ends_has_no_step_in_vain(n_waiting: int) -> None:
    """It leaves its row to the step that has begun, unless another sequence takes its slot."""
    run = AheadRun(device())
    n_requests = N_STREAMS + n_waiting
    requests = []
    for n in range(n_requests):
        words = prompt(f"{n:02} [[say:{'-' * (10 + 3 * n)}.]]")
        requests.append(spec(n, words, max_tokens=200, stop=(".",)))
    ends = []

    def count() -> None:
        ends.append(N_STREAMS - len(run.engine.scheduler.running))

    run.on_begin = lambda is_ahead: is_ahead and count()
    run.run(*requests)
    assert {1, 2} <= set(ends), "steps begin ahead while streams end"
    assert run.n_in_vain == 0
    for n in range(n_requests):
        assert run.text(n) == "-" * (10 + 3 * n)


def test_a_stream_that_leaves_no_prefix_has_no_step_in_vain_either() -> None:
    run = AheadRun(device())
    made = {"max_tokens": 200, "stop": (".",), "cache_prompt": False}
    for n in range(N_STREAMS):
        words = prompt(f"{n:02} [[say:{'-' * (10 + 3 * n)}.]]")
        run.engine.inbox.put(msgspec.structs.replace(spec(n, words), **made))
    run.run()
    assert run.n_in_vain == 0
    assert [run.text(n) for n in range(N_STREAMS)] == ["-" * (10 + 3 * n) for n in range(N_STREAMS)]


def test_no_cell_is_left_of_a_step_that_was_begun_when_all_streams_ended() -> None:
    run = AheadRun(device())
    for n in range(N_STREAMS):
        words = prompt(f"{n:02} [[say:{'-' * 30}.]]")
        run.engine.inbox.put(spec(n, words, max_tokens=200, stop=(".",)))
    while not run.engine.inbox.empty() or run.engine.scheduler.running:
        run.step()
    assert run.n_in_vain == 1
    run.engine.inbox.put(Cancel(Epoch(1), RequestNo(99)))
    run.engine.take_requests()
    holdings = run.engine.scheduler.slots.holdings()
    assert holdings
    for one in holdings:
        assert run.fake.history(one.slot) == list(one.tokens)


def test_steps_with_placeholder_rows_begin_ahead_until_the_rows_are_too_many() -> None:
    run, n_short = AheadRun(device()), 2
    ends = [5 if n < n_short else 100 for n in range(N_STREAMS)]
    requests = [
        spec(n, prompt(f"{n:02} [[stop@{end:03}]]"), max_tokens=200) for n, end in enumerate(ends)
    ]
    n_with_rows = 0

    def count(is_ahead: bool) -> None:
        nonlocal n_with_rows
        slots = run.engine.scheduler.slots
        assert isinstance(slots, PlaceholderSlots)
        n_with_rows += is_ahead and len(slots.held) > 0

    run.on_begin = count
    run.run(*requests)
    n_steps = H100.placeholders.most_rows // n_short
    assert n_with_rows > 0.8 * n_steps
    assert run.n_in_vain == 0
    check(run, *requests)


def test_sequences_that_take_turns_have_no_step_in_vain() -> None:
    fake = device()
    fake.facts = msgspec.structs.replace(fake.facts, adapters=("a",))
    run, plain = AheadRun(fake), asked(1)
    adapted = asked(2, adapters=(AdapterUse("a"),))
    run.run(plain, adapted)
    assert run.n_in_vain == 0
    check(run, plain, adapted)


def test_an_end_token_and_a_limit_end_sequences_as_they_would() -> None:
    run = AheadRun(device())
    stops = spec(1, prompt("end [[stop@7]]"), max_tokens=N_TOKENS)
    others = [asked(2, 12), asked(3, N_TOKENS)]
    run.run(stops, *others)
    assert len(run.tokens(1)) == 7
    assert run.n_ahead
    assert run.n_in_vain == 0
    check(run, stops, *others)


def test_a_message_waits_for_the_step_that_has_begun_and_no_longer() -> None:
    run, first, second = AheadRun(device()), asked(1), asked(2)
    run.engine.inbox.put(first)
    run.until_ahead()
    run.engine.inbox.put(second)
    run.engine.take_requests()
    assert run.engine.scheduler.find(second.request) is None
    run.engine.run_step()
    run.engine.take_requests()
    assert run.engine.scheduler.find(second.request) is not None
    run.run()
    check(run, first, second)


def test_a_cancelled_stream_ends_and_the_others_go_on() -> None:
    run, requests = AheadRun(device()), [asked(n) for n in range(1, 5)]
    for one in requests:
        run.engine.inbox.put(one)
    run.until_ahead()
    run.run(Cancel(Epoch(1), RequestNo(2)))
    check(run, requests[0], *requests[2:])
    assert len(run.tokens(2)) < N_TOKENS


@pytest.mark.parametrize("n", [1, 4])
def test_a_batch_of_sequences_that_are_gone_is_undone(n: int) -> None:
    """Nothing in the engine ends a sequence then; the cells would be right if something did."""
    run, requests = AheadRun(device()), [asked(number) for number in range(1, n + 1)]
    for one in requests:
        run.engine.inbox.put(one)
    run.until_ahead()
    gone = run.engine.scheduler.find(RequestNo(1))
    assert gone is not None
    run.engine.scheduler.finish(gone)
    again = asked(9)
    run.run(again)
    check(run, *requests[1:], again)


def test_edits_that_come_nevertheless_are_applied_before_the_step() -> None:
    run, requests = AheadRun(device()), [asked(number) for number in range(1, 4)]
    for one in requests:
        run.engine.inbox.put(one)
    run.until_ahead()
    removed: list[int] = []
    remove = run.fake.remove

    def watched(slot: int, start: int = 0) -> None:
        removed.append(slot)
        remove(slot, start)

    run.fake.remove = watched  # type: ignore[method-assign]
    run.engine.scheduler.slots.cut_at(CellPosition(N_STREAMS, 0))
    run.run()
    assert N_STREAMS in removed
    assert run.n_in_vain == 1
    check(run, *requests)


def test_a_lack_of_cells_is_met_by_the_step_that_is_planned() -> None:
    run, requests = AheadRun(device()), [asked(n) for n in range(1, 5)]
    n_refused = 0

    def refuse(is_ahead: bool) -> None:
        nonlocal n_refused
        if is_ahead and n_refused < 5:
            n_refused += 1
            raise OutOfCells("none left")

    run.on_begin = refuse
    run.run(*requests)
    assert n_refused == 5
    check(run, *requests)


def test_tokens_are_reported_before_the_failure_of_a_step_that_was_begun_ahead() -> None:
    """Messages that wait change neither the failure nor the requests that it names."""
    run, requests = AheadRun(device()), [asked(n) for n in range(1, 5)]
    n_known: dict[int, int] = {}

    def fail(is_ahead: bool) -> None:
        if is_ahead:
            running = run.engine.scheduler.running
            n_known.update({seq.request: seq.n_generated for seq in running})
            run.engine.inbox.put(asked(9))
            run.engine.inbox.put(Cancel(Epoch(1), RequestNo(1)))
            raise DecodeFailed("the device is lost")

    run.on_begin = fail
    with pytest.raises(DecodeFailed):
        run.run(*requests)
    assert isinstance(run.messages[-1], EngineFailed)
    assert run.messages[-1].requests == (1, 2, 3, 4)
    assert {n: len(run.tokens(n)) for n in n_known} == {n: k + 1 for n, k in n_known.items()}


def test_no_step_begins_ahead_of_an_embedding() -> None:
    run, one = AheadRun(device()), asked(1)
    run.engine.inbox.put(one)
    run.until_ahead()
    run.step()
    tokens = tuple(prompt("some words " * 100))
    run.engine.inbox.put(Wanted(Epoch(1), RequestNo(7), (tokens,), None))
    while run.engine._embedding.is_idle:
        run.step()
    before = run.n_ahead
    run.step()
    assert run.n_ahead == before
    run.run()
    check(run, one)


def test_no_step_begins_ahead_of_drafts() -> None:
    run = AheadRun(device(), drafter=PromptLookup())
    run.fix_costs(0.006, 1e-5)
    repeats = spec(1, prompt(f"tell [[say:{'abc ' * 50}]]"), max_tokens=200)
    run.run(repeats)
    assert any(sum(batch.outputs) > 1 for batch in run.fake.batches)
    assert run.n_ahead
    assert run.n_in_vain == 0
    check(run, repeats)
