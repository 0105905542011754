"""The description of this machine for a hello."""

import asyncio
import os
import re

from supervisor.cluster.messages import DeviceSummary
from supervisor.devices.monitor import DeviceMonitor
from supervisor.devices.snapshot import Snapshot, SourceState
from supervisor.worker_host.host import About

FIRST_SAMPLE_S = 2.0
POLL_S = 0.05
MAX_NAME = 63
MAX_WORD = 128

_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def machine_name(text: str) -> str:
    """A name that the protocol accepts, made from a host name."""
    return _NO_NAME.sub("-", text).strip("-._")[:MAX_NAME] or "host"


async def describe(name: str, monitor: DeviceMonitor) -> About:
    """Wait a moment for the first figures of the machine, and sum them up."""
    for _ in range(round(FIRST_SAMPLE_S / POLL_S)):  # threads sample: no event tells
        if not _is_pending(monitor.snapshot()):
            break
        await asyncio.sleep(POLL_S)
    return about(name, monitor.snapshot())


def about(name: str, snapshot: Snapshot) -> About:
    """The summary of a snapshot."""
    devices = tuple(
        DeviceSummary(one.kind[:MAX_WORD], one.index, one.name[:MAX_WORD], one.memory_total_bytes)
        for one in snapshot.devices
    )
    cores = snapshot.host.cpu_count or os.cpu_count() or 1
    return About(name, cores, snapshot.host.memory_total_bytes, devices)


def _is_pending(snapshot: Snapshot) -> bool:
    return any(one.state is SourceState.PENDING for one in snapshot.sources)
