"""Counters by model, and rates over bounded memory."""

import msgspec

from gpufc.errors import ModelNotFound, Overloaded
from gpufc.ids import WorkerName
from supervisor.dispatch.ledger import (
    NO_MODEL,
    RATE_WINDOW_S,
    Ledger,
    ModelTotals,
    Outcome,
    Rate,
)

Totals = dict[str, ModelTotals]


def test_a_rate_covers_the_last_full_seconds() -> None:
    rate = Rate()
    for second in range(100):
        rate.add(5, float(second))
    assert rate.per_second(100.0) == 5.0
    assert rate.per_second(100.0 + RATE_WINDOW_S / 2) == 2.5
    assert rate.per_second(200.0) == 0.0


def test_a_rate_of_now_is_known_from_the_first_seconds_on() -> None:
    rate = Rate()
    assert rate.lately(0.0) == 0.0
    rate.add(40, 100.5)
    assert rate.lately(100.6) == 40.0
    rate.add(40, 101.5)
    assert rate.lately(102.0) == 40.0
    assert rate.lately(200.0) == 0.0


def test_an_unknown_model_gets_no_counters_of_its_own() -> None:
    ledger = Ledger()
    ledger.rejected(ModelNotFound("no such model"), "invented")
    ledger.rejected(Overloaded("full", retry_after_s=1.0), "served")
    assert {name: one.rejected for name, one in ledger.totals().items()} == {
        NO_MODEL: {"model_not_found": 1},
        "served": {"overloaded": 1},
    }
    assert ledger.requests.rejected == 2


def test_another_front_goes_on_from_the_totals() -> None:
    before, after = Ledger(), Ledger()
    for model in ("a", "b"):
        of_model = before.of(model)
        of_model.generated(3, WorkerName("a-0"), 0.0)
        of_model.queue.add(0.1)
        of_model.ended(Outcome.SUCCEEDED, 1.0, "length")
        of_model.ended(Outcome.LOST, 1.0)
        of_model.replayed()
    after.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(before.totals()), type=Totals))
    after.of("a").queue.add(0.1)
    after.of("a").ended(Outcome.SUCCEEDED, 1.0, "length")
    assert (after.requests.succeeded, after.requests.lost, after.requests.replayed) == (3, 2, 2)
    assert after.tokens.generated == 6
    assert after.totals()["a"].durations["queue"].n_durations == 2
    assert after.totals()["a"].succeeded == {"length": 2}
    assert after.totals()["b"] == before.totals()["b"]
