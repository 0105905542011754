"""The worker host's process: its loop, signals, and end."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from gpufc.amount import amount
from supervisor import descriptors, front_process
from supervisor.cluster.join import Memory
from supervisor.cluster.messages import DEVICES_S, VITALS_S
from supervisor.devices.monitor import DeviceMonitor, default_monitor
from supervisor.fleet.process import WORKER_COMMAND
from supervisor.log_rotation import LIMIT_BYTES
from supervisor.runtime_dir import RuntimeDir
from supervisor.worker_host.about import describe
from supervisor.worker_host.dialer import Dialer, Goal
from supervisor.worker_host.host import About, WorkerHost
from supervisor.worker_host.library import Library
from supervisor.worker_host.machine import Machine

DRAIN_S = 30.0
"""How long a host that was asked to end waits for its front to move its streams."""

KILL_S = 5.0

LEAVING = front_process.DRAINING
"""Signals that let the front move this host's streams first. The second one ends at once."""

Say = Callable[[str], None]


class Plan(Struct, frozen=True):
    """Everything that a host process is started with."""

    runtime: RuntimeDir
    key_file: Path
    name: str
    goal: Goal
    models_dir: Path
    """Where this machine's models are, and copies of the front's are put."""
    drain_s: float = DRAIN_S
    command: Sequence[str] = WORKER_COMMAND


async def serve(plan: Plan, say: Say) -> str:
    """Run until a signal or the front ends it. Returns the reason. Raises `ConfigError`.

    Belongs into the main thread. No worker outlives the call."""
    front_process.start_threads()
    memory = Memory(plan.key_file)
    monitor = default_monitor(str(plan.runtime.path))
    monitor.start()
    machine = Machine(plan.runtime, plan.command)
    try:
        about = await describe(plan.name, monitor)
        say(_headline(about))
        host = WorkerHost(machine, about, Library(plan.models_dir), say)
        return await _run(
            host, Dialer(host, machine.context, plan.goal, memory, say), monitor, plan, say
        )
    finally:
        monitor.stop()
        machine.close()


async def _run(
    host: WorkerHost, dialer: Dialer, monitor: DeviceMonitor, plan: Plan, say: Say
) -> str:
    _attend_signals(host, plan.drain_s, say)
    # also as PID 1 of a container: `confine` has made this process the parent of orphans
    beside = [
        asyncio.create_task(_watch(host, monitor)),
        asyncio.create_task(front_process.reap_orphans()),
        asyncio.create_task(front_process.keep_rotated(plan.runtime.logs, lambda: LIMIT_BYTES)),
    ]
    dialling = asyncio.create_task(dialer.run())
    try:
        asked = asyncio.create_task(host.until(lambda: host.ending is not None))
        await asyncio.wait((asked, dialling, *beside), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        host.leave("a part of it has failed")  # without the watch no lease would end
        host.kill_all()
        await asyncio.wait((dialling,), timeout=KILL_S)
    finally:
        for task in (dialling, *beside):
            task.cancel()
        results = await asyncio.gather(dialling, *beside, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return host.ending.reason if host.ending is not None else ""


async def _watch(host: WorkerHost, monitor: DeviceMonitor) -> None:
    """Vitals and lease, and now and then the machine's figures."""
    every = round(DEVICES_S / VITALS_S)
    number = 0
    while True:
        host.look()
        if number % every == 0:
            host.report_devices(monitor.snapshot())
        number += 1
        await asyncio.sleep(VITALS_S)


def _attend_signals(host: WorkerHost, drain_s: float, say: Say) -> None:
    loop = asyncio.get_running_loop()
    asked = False

    def stop(number: signal.Signals) -> None:
        nonlocal asked
        if asked and number in front_process.REPEATED:
            return
        if asked or not host.is_attached or not host.n_workers:
            host.leave(f"{number.name} was received")
            return
        asked = True
        say(f"leaving: the front moves the streams of {host.n_workers} workers; again: now")
        host.tell_leaving(f"{number.name} was received", drain_s)
        loop.call_later(drain_s, host.leave, "the time to leave is over")

    for number in LEAVING:
        front_process.on_signal(number, stop, number)
    for number in front_process.ENDING:
        front_process.on_signal(number, host.leave, f"{number.name} was received")


def _headline(about: About) -> str:
    devices = ", ".join(f"{one.name} ({one.kind}{one.index})" for one in about.devices)
    memory = amount(about.memory_bytes)
    return f"worker host on {about.machine}: {about.cores} cores, {memory}, {devices or 'no GPU'}"


def confine() -> None:
    """Attributes of the process, before the loop: as a front's, and no core file."""
    front_process.confine()
    descriptors.raise_limit()
