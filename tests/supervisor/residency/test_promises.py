"""The invariants of residency, under any order of events."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.residency.memory import HOST
from supervisor.residency.port import Rules
from tests.supervisor.residency.machine import Machine, terms_of

DEVICES = ("CUDA0", "CUDA1")
MODELS = ("a", "b", "c", "d")

machines = st.builds(
    lambda sizes, pinned, keep, stay, patience, most, seed: Machine(
        {
            model: terms_of(size, *DEVICES, pinned=model == pinned, keep_alive_s=keep)
            for model, size in zip(MODELS, sizes, strict=True)
        },
        {HOST: 1000, "CUDA0": 10, "CUDA1": 8},
        Rules(min_stay_s=stay, stay_per_load=0.0, patience_s=patience, max_resident=most),
        seed,
    ),
    sizes=st.tuples(*[st.integers(1, 12)] * len(MODELS)),
    pinned=st.sampled_from((*MODELS, None)),
    keep=st.sampled_from((None, 0.0, 3.0)),
    stay=st.sampled_from((0.0, 2.0)),
    patience=st.sampled_from((0.0, 3.0)),
    most=st.sampled_from((None, 2, 3)),
    seed=st.integers(0, 3),
)

events = st.lists(
    st.one_of(
        st.tuples(st.just("request"), st.sampled_from(MODELS)),
        st.tuples(st.just("advance"), st.sampled_from((0.1, 0.4, 1.0, 5.0))),
        st.tuples(st.just("request"), st.sampled_from(MODELS)),
        st.tuples(st.just("advance"), st.sampled_from((0.25, 1.0))),
        st.tuples(st.just("measure"), st.none()),
        st.tuples(st.just("die"), st.sampled_from(MODELS)),
        st.tuples(st.just("unload"), st.sampled_from(MODELS)),
        st.tuples(st.just("break"), st.sampled_from(MODELS)),
    ),
    min_size=20,
    max_size=60,
)


def play(machine: Machine, event: tuple[str, object]) -> None:
    match event:
        case ("request", str(model)):
            machine.request(model)
        case ("advance", float(seconds)):
            machine.advance(seconds)
        case ("measure", _):
            machine.measure()
            machine.settle()
        case ("die", str(model)):
            machine.die(model)
        case ("unload", str(model)):
            machine.unload(model)
        case ("break", str(model)):
            machine.breaks ^= {model}
        case _:
            raise AssertionError(event)


@settings(max_examples=100)
@given(machine=machines, happened=events)
def test_no_order_of_events_evicts_the_busy_or_takes_bytes_twice(
    machine: Machine, happened: list[tuple[str, object]]
) -> None:
    for event in happened:
        play(machine, event)


@settings(max_examples=50)
@given(machine=machines, happened=events)
def test_whatever_happened_each_waiting_model_is_served_or_refused_in_bounded_time(
    machine: Machine, happened: list[tuple[str, object]]
) -> None:
    for event in happened:
        play(machine, event)
    machine.breaks.clear()
    rules, began = machine.rules, machine.now
    each_s = rules.patience_s + rules.min_stay_s + 5.0
    while any(machine.queues.values()):
        assert machine.now - began <= each_s * (len(MODELS) + 1)
        machine.advance(0.25)
        machine.measure()
        machine.settle()


@settings(max_examples=8)
@given(stay=st.sampled_from((1.0, 4.0)), sizes=st.tuples(*[st.integers(6, 10)] * 3))
def test_models_that_do_not_fit_together_share_the_device_without_ping_pong(
    stay: float, sizes: tuple[int, ...]
) -> None:
    """All are wanted all the time: each is served, and loads stay below one for each stay."""
    machine = Machine(
        {model: terms_of(size, "CUDA0") for model, size in zip("abc", sizes, strict=True)},
        {HOST: 1000, "CUDA0": 10},
        Rules(min_stay_s=stay, stay_per_load=0.0, patience_s=1.0),
    )
    seconds = 60
    for _ in range(seconds * 4):
        for model in "abc":
            machine.request(model)
        machine.advance(0.25)
        machine.measure()
        machine.settle()
    assert machine.loads.total() <= seconds / stay + 1
    assert min(machine.served[model] for model in "abc") > 0
    assert machine.longest_wait_s <= 3 * (stay + 1.0 + 1.0 + Machine.LOAD_S + Machine.LEAVE_S + 1)


@pytest.mark.parametrize(
    ("thinks", "most"), [((0.02, 0.4), 1 / 2), ((0.4, 0.7), 2 / 3), ((0.6, 2.0), 2 / 3)]
)
@settings(max_examples=8)
@given(
    load_s=st.sampled_from((4.0, 10.0)), answer_s=st.sampled_from((0.5, 2.0)), seed=st.integers()
)
def test_clients_that_think_between_requests_leave_a_bounded_part_of_the_time_to_loads(
    thinks: tuple[float, float], most: float, load_s: float, answer_s: float, seed: int
) -> None:
    """One client a model, memory for one of two models; clients think for parts of a load. Those
    that think for less than the pause of an idle model keep it for its stay."""
    machine = Machine(
        {model: terms_of(10, "CUDA0", load_s=load_s) for model in "ab"},
        {HOST: 1000, "CUDA0": 10},
        Rules(),
        load_s=load_s,
    )
    dice, n_loads = Random(seed), 30
    asks_at: dict[str, float | None] = dict.fromkeys("ab", machine.now)
    served = machine.served.copy()
    while machine.now < 100.0 + n_loads * load_s:
        for model, at in asks_at.items():
            if at is not None and machine.now >= at:
                asks_at[model] = None
                machine.request(model)
            if machine.served[model] > served[model]:
                served[model] += 1
                asks_at[model] = machine.now + answer_s + load_s * dice.uniform(*thinks)
        machine.advance(0.25, sequence_s=answer_s)
        machine.measure()
        machine.settle()
    assert 2 < machine.loads.total() <= n_loads * most + 1
    assert min(machine.served[model] for model in "ab") > 2
