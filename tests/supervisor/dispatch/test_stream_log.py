"""The log is the truth: nothing lost, repeated, or written after the end."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from gpufc.errors import EngineCrashed, LinkError
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Delta, FinishReason
from supervisor.dispatch import recovery
from supervisor.dispatch.recovery import Fail, Replay, decide
from supervisor.dispatch.stream_log import AlreadyEnded, StreamLog
from supervisor.fleet.exit_reason import WITH_ITS_MACHINE, ExitReason, Reason
from tests.supervisor.dispatch.fakes import KILLED, request

NO = RequestNo(7)


def running_log(epoch: int = 1) -> StreamLog:
    log = StreamLog(NO, request(max_tokens=50), scope="me")
    log.prompt_tokens = (1, 2, 3)
    log.dispatched(Epoch(epoch))
    return log


def delta(position: int, *tokens: int, finish: FinishReason | None = None) -> Delta:
    return Delta(NO, position, tokens, "".join(f"<{token}>" for token in tokens), finish)


def test_an_older_epoch_is_dropped() -> None:
    log = running_log()
    log.dispatched(Epoch(2))
    assert not log.append(delta(0, 10), Epoch(1))
    assert not log.tokens


def test_a_repetition_is_dropped_and_a_gap_is_an_error() -> None:
    log = running_log()
    assert log.append(delta(0, 10), Epoch(1))
    assert not log.append(delta(0, 10), Epoch(1))
    for position, tokens in ((2, (12,)), (0, (10, 11))):
        with pytest.raises(LinkError):
            log.append(delta(position, *tokens), Epoch(1))
    assert list(log.tokens) == [10]


def test_an_end_at_the_wrong_position_is_an_error_not_a_repetition() -> None:
    log = running_log()
    log.append(delta(0, 10, 11), Epoch(1))
    with pytest.raises(LinkError):
        log.append(delta(1, 11, finish=FinishReason.STOP), Epoch(1))


def test_there_is_one_end() -> None:
    log = running_log()
    log.append(delta(0, 10, finish=FinishReason.STOP), Epoch(1))
    assert not log.append(delta(1, 11), Epoch(1))
    with pytest.raises(AlreadyEnded):
        log.cancel()
    with pytest.raises(AlreadyEnded):
        log.fail(EngineCrashed("x"))
    with pytest.raises(AlreadyEnded):
        log.dispatched(Epoch(2))


def test_only_the_first_start_counts_cache_hits() -> None:
    log = running_log()
    assert log.started(2)
    assert not log.started(3)
    assert log.n_cached == 2


@pytest.mark.parametrize("n_tokens", [0, 1])
def test_after_three_replays_without_a_new_token_it_ends(n_tokens: int) -> None:
    log = running_log()
    if n_tokens:
        log.append(delta(0, 10), Epoch(1))
    for epoch in range(2, recovery.MAX_FRUITLESS_REPLAYS + 2):
        assert decide(log, KILLED) == Replay()
        log.dispatched(Epoch(epoch))
    assert isinstance(decide(log, KILLED), Fail)


def test_a_replay_that_brought_a_token_is_not_counted() -> None:
    log = running_log()
    for epoch in range(2, 20):
        log.append(delta(epoch - 2, 10), Epoch(epoch - 1))
        assert decide(log, KILLED) == Replay()
        log.dispatched(Epoch(epoch))


@pytest.mark.parametrize("reason", [Reason.RESTARTED, *sorted(WITH_ITS_MACHINE)])
def test_an_end_that_is_no_fault_of_the_engine_is_not_counted(reason: Reason) -> None:
    log = running_log()
    for epoch in range(2, 20):
        assert decide(log, ExitReason(reason=reason, at=0.0)) == Replay()
        log.dispatched(Epoch(epoch))


N_BEFORE_END = 6
"""Most streams should have tokens."""


class StreamLogMachine(RuleBasedStateMachine):
    """Any order of deltas, right or wrong, over any number of epochs, against a plain list."""

    @initialize()
    def start(self) -> None:
        self.log = running_log()
        self.epoch = 1
        self.tokens: list[int] = []
        self.ended = False

    @rule(tokens=st.lists(st.integers(0, 999), max_size=3))
    def next_delta(self, tokens: list[int]) -> None:
        self.appended(tokens, None)

    @precondition(lambda self: len(self.tokens) >= N_BEFORE_END)
    @rule(tokens=st.lists(st.integers(0, 999), max_size=3))
    def last_delta(self, tokens: list[int]) -> None:
        self.appended(tokens, FinishReason.STOP)

    def appended(self, tokens: list[int], finish: FinishReason | None) -> None:
        kept = self.log.append(delta(len(self.tokens), *tokens, finish=finish), Epoch(self.epoch))
        assert kept is not self.ended
        if kept:
            self.tokens += tokens
            self.ended = finish is not None

    @rule(
        shift=st.integers(-5, 5).filter(bool),
        tokens=st.lists(st.integers(0, 9), max_size=3),
        finish=st.booleans(),
    )
    def shifted_delta(self, shift: int, tokens: list[int], finish: bool) -> None:
        position = max(0, len(self.tokens) + shift)
        if position == len(self.tokens):
            return
        shifted = delta(position, *tokens, finish=FinishReason.STOP if finish else None)
        is_repetition = position + len(tokens) <= len(self.tokens) and not finish
        if self.ended or is_repetition:
            assert not self.log.append(shifted, Epoch(self.epoch))
        else:
            with pytest.raises(LinkError):
                self.log.append(shifted, Epoch(self.epoch))

    @rule(tokens=st.lists(st.integers(0, 9), min_size=1, max_size=3))
    def stale_delta(self, tokens: list[int]) -> None:
        assert not self.log.append(delta(len(self.tokens), *tokens), Epoch(self.epoch - 1))

    @precondition(lambda self: not self.ended)
    @rule()
    def replay(self) -> None:
        self.epoch += 1
        self.log.dispatched(Epoch(self.epoch))

    @precondition(lambda self: not self.ended and len(self.tokens) >= N_BEFORE_END)
    @rule()
    def cancel(self) -> None:
        self.log.cancel()
        self.ended = True

    @invariant()
    def holds_exactly_what_was_accepted(self) -> None:
        if hasattr(self, "log"):
            assert list(self.log.tokens) == self.tokens
            assert "".join(self.log.texts) == "".join(f"<{token}>" for token in self.tokens)
            assert self.log.ended == self.ended


TestStreamLogMachine = StreamLogMachine.TestCase
