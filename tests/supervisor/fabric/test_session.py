"""The session's decisions: events in, actions out."""

import itertools

import pytest

from supervisor.fabric.messages import (
    CancelInference,
    LoginResult,
    P2PCancelInference,
    PullModelResult,
)
from supervisor.fabric.session import (
    ANSWER_S,
    BEAT_AGAIN_S,
    BEAT_EVERY_S,
    CONNECT_S,
    LOGIN_S,
    LONGEST_WAIT_S,
    STATUS_EVERY_S,
    TAKEN_WAIT_S,
    Action,
    Beat,
    BeatFailed,
    Close,
    Closed,
    Connect,
    Event,
    Ignore,
    Join,
    ModelsChanged,
    Opened,
    Phase,
    Received,
    SendLogin,
    SendStatus,
    Session,
    Started,
    Stopped,
    Ticked,
)

WELCOME = Received(LoginResult(True, [], None))
ANSWER = Received(PullModelResult([], None))


class Driver:
    """A session with a clock and dice that a test sets."""

    def __init__(self, dice: float = 0.5) -> None:
        self.session = Session()
        self.now = 1000.0
        self.dice = dice

    def tell(self, *events: Event) -> list[Action]:
        return [
            action for event in events for action in self.session.handle(event, self.now, self.dice)
        ]

    def tick(self) -> list[Action]:
        """Let the time pass up to the deadline."""
        assert self.session.deadline is not None
        self.now = self.session.deadline
        return self.tell(Ticked())

    def wait_s(self) -> float:
        assert self.session.deadline is not None
        return self.session.deadline - self.now


@pytest.fixture
def online() -> Driver:
    driver = Driver()
    driver.tell(Started(), Opened(), WELCOME, ANSWER)
    return driver


def test_a_login_is_followed_by_the_models_and_a_heartbeat() -> None:
    driver = Driver()
    assert driver.tell(Started()) == [Connect()]
    assert driver.tell(Opened()) == [SendLogin()]
    assert driver.tell(WELCOME) == [Join(), SendStatus(), Beat()]
    assert driver.session.phase is Phase.ONLINE


def test_a_second_start_changes_nothing(online: Driver) -> None:
    assert online.tell(Started()) == []
    assert online.session.phase is Phase.ONLINE


def test_models_are_told_again_when_they_change_and_before_they_expire(online: Driver) -> None:
    assert online.tell(ModelsChanged(), ANSWER) == [SendStatus()]
    sent = [online.now]
    while len(sent) < 3:
        if SendStatus() in online.tick():
            sent.append(online.now)
            online.tell(ANSWER)
    assert [b - a for a, b in itertools.pairwise(sent)] == [STATUS_EVERY_S] * 2


def test_heartbeats_come_at_their_interval(online: Driver) -> None:
    begun, beats = online.now, []
    while len(beats) < 3:
        if Beat() in online.tick():
            beats.append(online.now - begun)
        online.tell(ANSWER)
    assert beats == [BEAT_EVERY_S, 2 * BEAT_EVERY_S, 3 * BEAT_EVERY_S]


def test_a_heartbeat_that_fails_is_sent_again(online: Driver) -> None:
    online.tell(BeatFailed())
    assert online.wait_s() == BEAT_AGAIN_S
    assert online.tick() == [Beat()]


def test_a_server_that_does_not_answer_is_left(online: Driver) -> None:
    online.tell(ModelsChanged())
    online.now += 1
    online.tell(ModelsChanged(), ANSWER)
    assert online.wait_s() == ANSWER_S  # of the second one
    assert online.tick() == [Close("the server does not answer")]
    assert online.tell(ANSWER, ModelsChanged(), Ticked()) == []


@pytest.mark.parametrize(("events", "wait_s"), [((), CONNECT_S), ((Opened(),), LOGIN_S)])
def test_neither_a_connection_nor_a_login_is_waited_for_for_ever(
    events: tuple[Event, ...], wait_s: float
) -> None:
    driver = Driver()
    driver.tell(Started(), *events)
    assert driver.wait_s() == wait_s
    (action,) = driver.tick()
    assert isinstance(action, Close)


def test_the_next_connection_waits_for_the_old_socket_to_be_closed(online: Driver) -> None:
    online.tell(ModelsChanged())
    online.tick()
    assert online.session.phase is Phase.CLOSING
    assert online.session.deadline is None
    online.now += 3600
    assert online.tell(Ticked(), Started()) == []
    assert online.tell(Closed("")) == []
    assert online.session.last_error == "the server does not answer"
    assert online.tick() == [Connect()]


def test_waits_grow_with_full_jitter_and_have_bounds() -> None:
    longest, shortest = [], []
    for dice, waits in ((0.999999, longest), (0.0, shortest)):
        driver = Driver(dice)
        driver.tell(Started())
        for _ in range(9):
            driver.tell(Closed("refused"))
            waits.append(round(driver.wait_s()))
            assert driver.tick() == [Connect()]
    assert longest == [2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert shortest == [1] * 9


def test_only_a_server_that_answers_makes_the_waits_short_again() -> None:
    driver = Driver(0.999999)
    driver.tell(Started())
    for _ in range(5):
        driver.tell(Opened(), WELCOME, Closed("reset"))
        driver.tick()
    driver.tell(Opened(), WELCOME, Closed("reset"))
    assert driver.wait_s() == pytest.approx(60, abs=0.1)
    driver.tick()
    driver.tell(Opened(), WELCOME, ANSWER, Closed("reset"))
    assert driver.wait_s() == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    ("error", "wait_s"),
    [
        ("Client ID already registered", TAKEN_WAIT_S),
        ("Invalid client ID", LONGEST_WAIT_S),
        (None, 1.0),
    ],
)
def test_a_refused_login_closes_waits_and_tries_again(error: str | None, wait_s: float) -> None:
    driver = Driver(0.0)
    driver.tell(Started(), Opened())
    (action,) = driver.tell(Received(LoginResult(False, [], error)))
    assert isinstance(action, Close)
    assert driver.tell(Closed("")) == []
    assert driver.wait_s() == wait_s
    assert (error or "no reason") in driver.session.last_error
    assert driver.tick() == [Connect()]


def test_other_messages_are_ignored_and_named(online: Driver) -> None:
    message = P2PCancelInference(bytes(16), "t")
    assert online.tell(Received(message)) == [Ignore(message)]


def test_a_server_may_send_a_task_only_after_the_login() -> None:
    driver = Driver()
    driver.tell(Started(), Opened())
    message = CancelInference("t")
    assert driver.tell(Received(message)) == [Ignore(message)]


@pytest.mark.parametrize("n_events", range(1, 5))
def test_a_stop_ends_any_phase_and_a_start_begins_again(n_events: int) -> None:
    driver = Driver()
    driver.tell(*[Started(), Opened(), WELCOME, ANSWER][:n_events])
    (action,) = driver.tell(Stopped())
    assert isinstance(action, Close)
    assert driver.tell(Stopped(), Closed("")) == []
    assert (driver.session.phase, driver.session.deadline) == (Phase.OFF, None)
    assert driver.tell(Closed(""), Ticked(), Opened()) == []
    assert driver.tell(Started()) == [Connect()]


def test_a_stop_ends_the_waiting() -> None:
    driver = Driver()
    driver.tell(Started(), Closed("refused"))
    assert driver.tell(Stopped()) == []
    assert driver.session.phase is Phase.OFF


def test_a_start_during_the_closing_of_a_stop_connects_again() -> None:
    driver = Driver()
    driver.tell(Started(), Opened(), Stopped(), Started())
    driver.tell(Closed(""))
    assert driver.tick() == [Connect()]
