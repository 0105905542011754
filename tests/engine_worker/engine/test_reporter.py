"""In which order messages leave the engine, and when step costs are learnt."""

from engine_worker.engine.reporter import Reporter, StepCost, StepResult
from engine_worker.scheduling.step_costs import StepCosts
from engine_worker.text.sequence import Sequence
from gpufc.errors import DecodeFailed, InvalidRequest
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import EngineFailed, FromWorker, Refused, Step
from tests.engine_worker.text.sequences import sequence, spec


class Reported:
    """A reporter with everything that it has emitted."""

    def __init__(self, *, may_hold: bool) -> None:
        self.messages: list[FromWorker] = []
        self.costs = StepCosts()
        self.reporter = Reporter(self.messages.append, Epoch(1), self.costs, may_hold=may_hold)

    @property
    def kinds(self) -> list[type]:
        return [type(message) for message in self.messages]


def result(*gained: Sequence, n_tokens: int = 1, seconds: float = 1.0) -> StepResult:
    return StepResult(7, list(gained), [], 0, StepCost(n_tokens, seconds, 1, 0.0))


def test_a_result_is_held_only_where_more_steps_follow_on_a_device() -> None:
    for may_hold, more, n_messages in (
        (True, True, 0),
        (True, False, 1),
        (False, True, 1),
    ):
        reported = Reported(may_hold=may_hold)
        reported.reporter.add(result(), more=more)
        assert len(reported.messages) == n_messages


def test_a_held_result_is_reported_once_and_before_any_later_message() -> None:
    reported = Reported(may_hold=True)
    reported.reporter.add(result(), more=True)
    reported.reporter.refused(RequestNo(3), InvalidRequest("no"))
    reported.reporter.flush()
    assert reported.kinds == [Step, Refused]


def test_a_failure_comes_after_the_tokens_of_the_step_before() -> None:
    reported, seq = Reported(may_hold=True), sequence(spec(2))
    seq.accept(97)
    reported.reporter.add(result(seq), more=True)
    reported.reporter.failed([seq.request], DecodeFailed("lost"))
    step, failed = reported.messages
    assert isinstance(step, Step)
    assert isinstance(failed, EngineFailed)
    assert step.deltas[0].tokens == (97,)
    assert failed.requests == (2,)


def test_a_held_result_belongs_to_the_epoch_in_which_it_was_computed() -> None:
    reported = Reported(may_hold=True)
    reported.reporter.add(result(), more=True)
    reported.reporter.begin_epoch(Epoch(2))
    reported.reporter.cancelled(RequestNo(1))
    assert [message.epoch for message in reported.messages] == [1, 2]


def test_costs_are_learnt_when_a_step_is_reported() -> None:
    reported = Reported(may_hold=True)
    for n_tokens, seconds in ((1, 1.0), (9, 2.0)):
        assert reported.costs.seconds(1, 1) is None
        reported.reporter.add(result(n_tokens=n_tokens, seconds=seconds), more=True)
        reported.reporter.flush()
    assert reported.costs.seconds(1, 1) == 1.0
