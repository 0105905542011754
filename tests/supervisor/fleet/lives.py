"""Lifecycles at a state, and what their tests look at."""

import itertools
import random
import signal

from gpufc.ids import Epoch
from supervisor.fleet import events as ev
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.ladder import Timings
from supervisor.fleet.lifecycle import WorkerLifecycle
from supervisor.fleet.restart_policy import RestartPolicy
from supervisor.fleet.states import WorkerState
from tests.fakes.child_worker import ready

E1, E2 = Epoch(1), Epoch(2)
KILLED = ExitReason(signal=9, reason=Reason.KILLED, at=0.0)
CRASHED = ExitReason(signal=11, reason=Reason.CRASHED, at=0.0)
READY = ready(E1)
KILL = ev.Signal(signal.SIGKILL, group=True)
DUMP = [ev.Signal(signal.SIGCONT), ev.Signal(signal.SIGABRT)]


def lifecycle(restart_limit: int = 10, *, is_placed: bool = False) -> WorkerLifecycle:
    epochs = itertools.count(1)
    policy = RestartPolicy(restart_limit, random.Random(1))
    return WorkerLifecycle(policy, Timings(), lambda: Epoch(next(epochs)), is_placed=is_placed)


def brought_to(state: WorkerState) -> WorkerLifecycle:
    """A lifecycle whose first process has come that far."""
    life = lifecycle()
    path: list[ev.Event] = [
        ev.StartRequested(),
        ev.Spawned(E1, 100),
        ev.HelloReceived(E1),
        ev.BecameReady(E1, READY),
        ev.TrialPassed(E1),
        ev.DrainRequested(),
    ]
    for event in path:
        if life.state is state:
            break
        life.handle(event, 0.0)
    assert life.state is state
    return life


def successor(epoch: Epoch, replaces: Reason) -> ev.Spawn:
    """The start of a process after one that has ended: requests wait for it."""
    return ev.Spawn(epoch, replaces, is_awaited=True)


def without_timers(actions: list[ev.Action]) -> list[ev.Action]:
    return [a for a in actions if not isinstance(a, ev.SetTimer | ev.Publish)]


def timer(actions: list[ev.Action]) -> ev.SetTimer:
    (found,) = [action for action in actions if isinstance(action, ev.SetTimer)]
    return found


def fire(life: WorkerLifecycle, actions: list[ev.Action], now: float) -> list[ev.Action]:
    due = timer(actions)
    return life.handle(ev.TimerFired(due.kind, due.generation), now)
