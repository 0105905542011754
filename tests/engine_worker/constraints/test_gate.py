"""The gate: sequences reach the engine once their constraints are compiled, or not at all."""

import threading
from collections.abc import Iterator

import pytest

from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.constraints import gate
from engine_worker.constraints.compiler import Compiler
from engine_worker.constraints.gate import Gate
from gpufc.config import BackendKind, ModelConfig
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.errors import InvalidRequest
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Finished, FromWorker, Generate, Refused
from gpufc.sampling import SamplingParams
from tests.service import wait_for

GOOD = Constraint(ConstraintKind.REGEX, "a+")
BAD = Constraint(ConstraintKind.REGEX, "a{1000000000}", "regex")


class Slow:
    """Implements `Preparation` for the requests in `unready`. The third is refused."""

    def __init__(self) -> None:
        self.unready: set[int] = set()

    def is_ready(self, spec: Generate) -> bool:
        return spec.request not in self.unready

    def make_ready(self, spec: Generate) -> None:
        if spec.request == 3:
            raise InvalidRequest("never", param="dry_sequence_breakers")
        self.unready.discard(spec.request)


class Gated:
    """A gate with everything that it has passed on and sent."""

    def __init__(self) -> None:
        self.passed: list[Generate] = []
        self.sent: list[FromWorker] = []
        self.compiler = Compiler(FakeBackend(ModelConfig(backend=BackendKind.FAKE), 1))
        self.looks = 0
        self.is_idle = True
        self.slow = Slow()
        self.gate = Gate(
            self.compiler, self.passed.append, self.sent.append, self._looked, (self.slow,)
        )

    def _looked(self) -> bool:
        self.looks += 1
        return self.is_idle

    def start(self) -> None:
        threading.Thread(target=self.gate.run, daemon=True).start()


@pytest.fixture
def gated() -> Iterator[Gated]:
    made = Gated()
    yield made
    made.compiler.close()


def spec(request: int, constraint: Constraint | None) -> Generate:
    sampling = SamplingParams(seed=1)
    return Generate(
        Epoch(1), RequestNo(request), RequestId("r"), 0, (1,), sampling, constraint=constraint
    )


def test_a_sequence_without_constraint_passes_at_once(gated: Gated) -> None:
    gated.gate.admit(spec(1, None))
    assert [passed.request for passed in gated.passed] == [1]


def test_a_sequence_passes_once_its_constraint_is_compiled(gated: Gated) -> None:
    gated.gate.admit(spec(1, GOOD))
    assert not gated.passed
    gated.start()
    wait_for(lambda: gated.passed)
    assert gated.compiler.is_compiled(GOOD)
    gated.gate.admit(spec(2, GOOD))
    assert [passed.request for passed in gated.passed] == [1, 2]


def test_a_constraint_that_does_not_compile_refuses_its_sequence(gated: Gated) -> None:
    gated.gate.admit(spec(1, BAD))
    gated.start()
    wait_for(lambda: gated.sent)
    (refused,) = gated.sent
    assert isinstance(refused, Refused)
    assert (refused.code, refused.param) == ("invalid_grammar", "regex")
    assert not gated.passed


def test_a_held_sequence_can_be_cancelled(gated: Gated) -> None:
    gated.gate.admit(spec(1, GOOD))
    assert not gated.gate.cancel(Epoch(1), RequestNo(2))
    assert gated.gate.cancel(Epoch(1), RequestNo(1))
    (finished,) = gated.sent
    assert isinstance(finished, Finished)
    assert not gated.gate.cancel(Epoch(1), RequestNo(1))


def test_held_sequences_of_another_front_are_dropped(gated: Gated) -> None:
    gated.gate.admit(spec(1, GOOD))
    gated.gate.drop_all()
    gated.start()
    gated.gate.admit(spec(2, GOOD))
    wait_for(lambda: gated.passed)
    assert [passed.request for passed in gated.passed] == [2]
    assert not gated.sent


def test_a_busy_worker_reads_the_vocabulary_once_it_is_idle(
    gated: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "WARM_UP_S", 0.001)
    warmed = threading.Event()
    monkeypatch.setattr(gated.compiler, "warm_up", warmed.set)
    gated.is_idle = False
    gated.start()
    wait_for(lambda: gated.looks > 2)
    assert not warmed.is_set()
    gated.is_idle = True
    assert warmed.wait(60)


def test_a_worker_with_the_vocabulary_waits_for_no_idle_moment(
    gated: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    warmed = threading.Event()
    gated.compiler.read_vocabulary()
    monkeypatch.setattr(gated.compiler, "warm_up", warmed.set)
    gated.is_idle = False
    gated.start()
    assert warmed.wait(60)
    assert gated.looks == 0


def test_a_sequence_waits_for_what_else_it_needs(gated: Gated) -> None:
    gated.slow.unready |= {1, 3}
    for number in (1, 2, 3):
        gated.gate.admit(spec(number, None))
    assert [passed.request for passed in gated.passed] == [2]
    gated.start()
    wait_for(lambda: gated.sent)
    assert [passed.request for passed in gated.passed] == [2, 1]
    (refused,) = gated.sent
    assert isinstance(refused, Refused)
    assert refused.param == "dry_sequence_breakers"
