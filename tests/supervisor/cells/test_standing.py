"""Whether a front may write: every event in every state."""

import pytest

from supervisor.cells.standing import (
    Event,
    GiveUp,
    GoAlone,
    Looked,
    NoAnswer,
    Refused,
    Rejoin,
    Standing,
    State,
    Stored,
)

PAUSE = 3.0


def after(*events: Event) -> Standing:
    standing = Standing(PAUSE)
    for event in events:
        standing.handle(event)
    return standing


def test_clients_wait_for_the_pause_and_then_go_on_alone_once() -> None:
    standing = Standing(PAUSE)
    assert standing.handle(NoAnswer(10.0)) is None
    assert standing.state is State.WAITING
    assert standing.handle(NoAnswer(12.0)) is None
    assert standing.handle(Looked(12.9)) is None
    assert standing.handle(Looked(13.0)) == GoAlone()
    assert standing.state is State.ALONE
    assert standing.handle(NoAnswer(14.0)) is None
    assert standing.handle(Looked(100.0)) is None


def test_an_answer_within_the_pause_changes_nothing_for_clients() -> None:
    standing = after(NoAnswer(10.0))
    assert standing.handle(Stored()) is None
    assert standing.state is State.OWNER
    assert standing.handle(NoAnswer(20.0)) is None
    assert standing.handle(Looked(22.9)) is None


def test_an_answer_after_the_pause_makes_it_rejoin() -> None:
    standing = after(NoAnswer(10.0), Looked(20.0))
    assert standing.handle(Stored()) == Rejoin()
    assert standing.state is State.OWNER


@pytest.mark.parametrize("before", [(), (NoAnswer(0.0),), (NoAnswer(0.0), Looked(9.0))])
def test_a_refusal_is_for_ever(before: tuple[Event, ...]) -> None:
    standing = after(*before)
    assert standing.handle(Refused()) == GiveUp()
    for event in (Stored(), NoAnswer(1.0), Looked(99.0), Refused()):
        assert standing.handle(event) is None
        assert standing.state is State.FENCED


def test_without_a_pause_they_go_on_at_once() -> None:
    assert Standing(0.0).handle(NoAnswer(1.0)) == GoAlone()
