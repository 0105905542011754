"""The real worker on the fake backend, hung in every way there is; the fleet's verdict and dump."""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from gpufc.config import BackendKind, Config, FleetConfig, ModelConfig, Standby
from gpufc.ids import RequestNo
from gpufc.protocol import Generate, Prepare, Step, TextPrompt
from gpufc.sampling import SamplingParams
from supervisor.fleet import observation
from supervisor.fleet.crash_record import CrashRecord
from supervisor.fleet.crash_store import CrashStore
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.port import ConditionStatus, WorkerHandle
from supervisor.fleet.trial import N_TOKENS
from supervisor.fleet.watchdog import LIMITS, TICK_S, Verdict, Vitals, Watchdog, WatchLimits
from supervisor.runtime_dir import RuntimeDir
from tests.supervisor.fleet.conftest import QUICK, Recorder, Started

SOON = WatchLimits(
    silence_s=1.5,
    loading_silence_s=3.0,
    step_least_s=1.5,
    first_step_s=1.5,
    first_step_again_s=1.5,
)

PATIENT = WatchLimits(silence_s=1.5, loading_silence_s=1.5, loading_still_s=30.0)
"""Silence counts soon; steps and loads have the service's own limits."""

StartReal = Callable[..., Awaitable[Started]]


class Look(NamedTuple):
    """One look of the watchdog: seconds since the last look, the vitals, the verdict."""

    gap_s: float
    vitals: Vitals | None
    verdict: Verdict | None


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Look]:
    """Every look that a watchdog takes in this test, in order."""
    seen: list[Look] = []

    class Seen(Watchdog):
        def look(self, now: float, vitals: Vitals | None) -> Verdict | None:
            gap_s = now - self._looked_at
            verdict = super().look(now, vitals)
            seen.append(Look(gap_s, vitals, verdict))
            return verdict

    monkeypatch.setattr(observation, "Watchdog", Seen)
    return seen


async def until_looked(looks: list[Look], n_looks: int) -> None:
    """Wait for so many looks in all. The loop's timer brings one every `TICK_S`."""
    async with asyncio.timeout(60):
        while len(looks) < n_looks:  # noqa: ASYNC110 - a look tells no event
            await asyncio.sleep(TICK_S / 10)


@pytest.fixture
async def start_real(runtime: RuntimeDir) -> AsyncIterator[StartReal]:
    """Start a fleet of one `python -m engine_worker` with a scripted backend."""
    started: list[Started] = []

    async def start(
        script: str = "",
        *,
        watch: WatchLimits = SOON,
        standby: Standby = Standby.NONE,
        restart_limit: int = 1000,
    ) -> Started:
        config = Config(
            models={"default": ModelConfig(backend=BackendKind.FAKE, fake_script=script)},
            fleet=FleetConfig(standby=standby, restart_limit=restart_limit),
        )
        listener = Recorder()
        fleet = Fleet(config, runtime, listener, timings=QUICK, watch=watch)
        await fleet.start()
        started.append(Started(fleet, listener, runtime))
        return started[-1]

    yield start
    for each in started:
        await each.fleet.stop(now=True)


def generate(worker: WorkerHandle, prompt: str, max_tokens: int = 8, request: int = 1) -> None:
    """The fake vocabulary's prompt tokens are bytes."""
    worker.send(
        Generate(
            epoch=worker.epoch,
            request=RequestNo(request),
            request_id="r",  # type: ignore[arg-type]
            choice=0,
            prompt_tokens=tuple(prompt.encode()),
            sampling=SamplingParams(seed=1),
            max_tokens=max_tokens,
        )
    )


def n_tokens(started: Started) -> int:
    steps = [m for m in started.listener.messages if isinstance(m, Step)]
    return sum(len(delta.tokens) for step in steps for delta in step.deltas)


async def recorded(started: Started) -> CrashRecord:
    """The newest crash record, once it has been written."""
    return (await records(started, 1))[0]


async def records(started: Started, n: int) -> list[CrashRecord]:
    """The newest `n`. A thread writes them and announces nothing."""
    store = CrashStore(started.runtime.path)

    def wait() -> list[CrashRecord]:
        until = time.monotonic() + 60
        while len(found := store.list()) < n and time.monotonic() < until:
            time.sleep(0.02)
        return [store.load(summary.id) for summary in found]

    return await asyncio.to_thread(wait)


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [("hang", f"step {N_TOKENS + 4} of 1 tokens has taken"), ("freeze", "no heartbeat for")],
)
async def test_a_fault_in_the_engine_thread(
    start_real: StartReal, fault: str, verdict: str
) -> None:
    started = await start_real()
    worker = await started.until_ready()
    generate(worker, f"[[{fault}@3]]")
    await started.listener.until(lambda: n_tokens(started) == 3)
    await started.listener.until(lambda: started.listener.lost)
    assert started.fleet.condition().status is ConditionStatus.HUNG
    assert started.listener.lost[0].reason is Reason.HUNG
    said = re.search(rf"{verdict} (\d+\.\d) s", started.listener.lost[0].detail)
    assert said is not None
    assert float(said[1]) >= SOON.silence_s == SOON.step_least_s  # the verdict came no earlier
    second = await started.until_ready(2)
    generate(second, "and on it goes")
    await started.listener.until(lambda: n_tokens(started) == 11)
    record = await recorded(started)
    assert (record.reason, record.signal, record.was_ready) == (Reason.HUNG, signal.SIGABRT, True)
    assert any("fake/faults.py" in line for line in record.python_stack)
    assert record.engine is not None
    assert record.engine.last_step_sent == N_TOKENS + 3
    assert [(had.no, had.max_tokens) for had in record.sequences] == [(1, 8)]


async def test_a_hang_in_the_prompt(start_real: StartReal) -> None:
    started = await start_real()
    generate(await started.until_ready(), "[[hang@-1]]")
    await started.listener.until(lambda: started.listener.lost)
    assert f"prefill step {N_TOKENS + 1} of 11 tokens" in started.listener.lost[0].detail


async def test_a_hang_beside_the_engine_names_its_question_and_no_sequence(
    start_real: StartReal,
) -> None:
    started = await start_real("step_ms=20", watch=WatchLimits(prepare_s=1.5))
    worker = await started.until_ready()
    generate(worker, "goes on meanwhile", 400)
    worker.send(Prepare(worker.epoch, RequestNo(7), TextPrompt("[[tokenize:hang]]")))
    await started.listener.until(lambda: started.listener.lost)
    lost = started.listener.lost[0]
    assert (lost.reason, lost.questions, lost.requests) == (Reason.HUNG, (7,), ())
    assert "preparing a prompt has taken" in lost.detail
    assert n_tokens(started) > 8
    assert started.fleet.condition().status is ConditionStatus.HUNG
    await started.until_ready(2)


async def test_stopped_for_ever(start_real: StartReal) -> None:
    started = await start_real()
    await started.until_ready()
    os.kill(started.status.pid, signal.SIGSTOP)
    await started.listener.until(lambda: started.listener.lost)
    assert "run state T" in started.listener.lost[0].detail
    assert started.fleet.condition().status is ConditionStatus.HUNG
    await started.until_ready(2)
    assert (await recorded(started)).signal == signal.SIGABRT  # it was continued, and dumped


async def test_stopped_while_it_loads(start_real: StartReal) -> None:
    started = await start_real("load_s=20")
    await started.until_state("loading")
    pid = started.status.pid
    os.kill(pid, signal.SIGSTOP)
    await started.listener.until(lambda: started.status.last_exit)
    assert started.status.last_exit.reason is Reason.HUNG


async def test_a_worker_stopped_for_a_while_as_it_generates_goes_on(
    start_real: StartReal, looks: list[Look]
) -> None:
    started = await start_real("step_ms=20", watch=LIMITS)
    generate(await started.until_ready(), "a prompt", 60)
    await started.listener.until(lambda: n_tokens(started) >= 20)
    pid, before = started.status.pid, len(looks)
    os.kill(pid, signal.SIGSTOP)
    await until_looked(looks, before + 4)
    os.kill(pid, signal.SIGCONT)
    await started.listener.until(lambda: n_tokens(started) == 60)
    assert any(look.vitals is not None and look.vitals.is_stopped for look in looks[before:])
    assert (started.status.pid, started.listener.lost) == (pid, [])


async def test_a_loop_that_was_late_blames_no_worker(
    start_real: StartReal, looks: list[Look]
) -> None:
    """The look after a suspension and the one after that give no verdict. The second one cannot be
    wrong on any machine: either it comes in time, or it is late as well."""
    started = await start_real("step_ms=20")
    worker = await started.until_ready()
    generate(worker, "a prompt", 4000)
    await started.listener.until(lambda: n_tokens(started) >= 5)
    before = len(looks)
    os.kill(started.status.pid, signal.SIGSTOP)
    time.sleep(SOON.silence_s + 1.0)  # noqa: ASYNC251 - the suspension of front and worker
    os.kill(started.status.pid, signal.SIGCONT)
    assert len(looks) == before
    await until_looked(looks, before + 2)
    assert looks[before].gap_s > SOON.silence_s
    assert [look.verdict for look in looks[before : before + 2]] == [None, None]
    so_far = n_tokens(started)
    await started.listener.until(lambda: n_tokens(started) > so_far)
    assert started.listener.lost == []


async def test_steps_and_loads_longer_than_the_silence_allowed_are_left_alone(
    start_real: StartReal,
) -> None:
    # the trial's prompt is short: one step only is long
    started = await start_real("load_s=2,prefill_us=20000", watch=PATIENT)
    generate(await started.until_ready(), "x" * 120, 2)
    await started.listener.until(lambda: n_tokens(started) == 2)
    assert (started.listener.lost, started.status.restarts) == ([], 0)


@pytest.mark.parametrize(
    ("script", "restarts", "text", "signal_"),
    [
        ("load_fault=segv", 2, "3 starts in a row never became ready; last: ", None),
        ("load_fault=kill", 2, "never became ready; last: killed (SIGKILL)", signal.SIGKILL),
        ("load_fault=exit3", 2, "never became ready; last: exited (code 3)", 0),
        ("load_fail=1", 0, "load_failed (code 0): the fake model does not load", 0),
    ],
)
@pytest.mark.parametrize("standby", [Standby.NONE, Standby.WARM])
async def test_a_model_that_never_loads(
    start_real: StartReal,
    script: str,
    restarts: int,
    text: str,
    signal_: int | None,
    standby: Standby,
) -> None:
    started = await start_real(script, watch=LIMITS, standby=standby)
    await started.until_state("failed")
    assert started.status.restarts == restarts
    assert text in started.status.detail
    assert started.status.detail == started.fleet.condition().detail
    assert started.fleet.condition().status is ConditionStatus.FAILED
    assert signal_ in {None, started.status.last_exit.signal or 0}
    assert started.fleet.spares() == []
    assert len(await records(started, restarts + 1)) == restarts + 1


async def test_restart_clears_failed(start_real: StartReal, tmp_path: Path) -> None:
    """Broken three times, then mended: no start follows until an operator asks."""
    mended = tmp_path / "mended"
    started = await start_real(f"load_fault=kill,fail_once_file={mended}", watch=LIMITS)
    while started.status.state != "failed":
        epoch = started.status.epoch
        await started.listener.until(
            lambda epoch=epoch: started.status.epoch > epoch or started.status.state == "failed"
        )
        mended.unlink(missing_ok=True)
    mended.touch()
    await started.fleet.restart(None)
    assert started.status.state == "ready"
    assert started.status.detail == ""
