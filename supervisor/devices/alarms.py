"""When the machine needs an operator's look. Pure: snapshots in, alarms out.

An alarm begins when its condition has held for a while, and ends when a weaker condition has not
held for as long, so that a figure on the edge does not flicker.
"""

from collections.abc import Iterator
from typing import NamedTuple

from msgspec import Struct

from supervisor.devices.snapshot import Alarm, AlarmKind, Device, Host, Snapshot, SourceState

HELD_S = 5.0
"""How long a condition holds before its alarm begins."""
OVER_S = 15.0
"""How long a condition is absent before its alarm ends."""
THROTTLED_S = 30.0
"""Clocks fall for moments on a healthy card; only longer is worth a look."""
NORMAL = frozenset({"power cap"})
"""Reasons of a busy and healthy card."""
ERROR_S = 3600.0
"""How long an error of the driver stays an alarm."""

HOT_CELSIUS = 90.0
"""Where the driver tells no limit."""
HOT_BELOW_LIMIT = 2.0
EASE_CELSIUS = 5.0
FULL = 0.98
HOST_FULL = 0.97
EASE = 0.02
DISK_FREE_BYTES = 1 << 30
DISK_FREE_RATIO = 0.05
"""The smaller of the two counts: a runtime folder may lie on a small file system in memory."""

GIB = 1 << 30


class Sign(NamedTuple):
    """A condition that holds now. A weak one ends no alarm and begins none."""

    kind: AlarmKind
    subject: str
    text: str
    is_strong: bool
    held_s: float = HELD_S


class _Watched(Struct):
    """A condition since it first held."""

    since: float
    seen_at: float
    alarm: Alarm | None = None


class Change(NamedTuple):
    """An alarm that has begun or ended."""

    alarm: Alarm
    has_begun: bool


class Alarms:
    """The alarms in force. One owner calls `take` with one snapshot after another."""

    def __init__(self) -> None:
        self._watched: dict[tuple[AlarmKind, str], _Watched] = {}

    @property
    def current(self) -> tuple[Alarm, ...]:
        """In force, the longest lasting one first."""
        alarms = (one.alarm for one in self._watched.values() if one.alarm)
        return tuple(sorted(alarms, key=lambda alarm: alarm.since))

    def take(self, snapshot: Snapshot, at: float) -> list[Change]:
        """Look at a snapshot of this moment, in unix seconds. Returns what has changed."""
        changes = []
        for sign in signs(snapshot, at):
            if change := self._see(sign, at):
                changes.append(change)
        for key, one in list(self._watched.items()):
            waits_s = OVER_S if one.alarm else 0.0
            if at - one.seen_at > waits_s:
                del self._watched[key]
                if one.alarm:
                    changes.append(Change(one.alarm, has_begun=False))
        return changes

    def _see(self, sign: Sign, at: float) -> Change | None:
        key = (sign.kind, sign.subject)
        known = self._watched.get(key)
        if known is None:
            if not sign.is_strong:
                return None
            known = self._watched[key] = _Watched(since=at, seen_at=at)
        if not sign.is_strong and known.alarm is None:
            return None
        known.seen_at = at
        was = known.alarm
        if was is None and at - known.since < sign.held_s:
            return None
        known.alarm = Alarm(kind=sign.kind, subject=sign.subject, text=sign.text, since=known.since)
        return Change(known.alarm, has_begun=True) if was is None else None


def signs(snapshot: Snapshot, at: float) -> Iterator[Sign]:
    """The conditions that hold in a snapshot."""
    for device in snapshot.devices:
        yield from _of_device(device, at)
    yield from _of_host(snapshot.host)
    for source in snapshot.sources:
        if source.state in {SourceState.FAILED, SourceState.HUNG}:
            yield Sign(AlarmKind.DRIVER_ERROR, source.name, source.detail, is_strong=True)


def _of_device(device: Device, at: float) -> Iterator[Sign]:
    heat, limit = device.temperature_celsius, device.temperature_limit_celsius
    hot = HOT_CELSIUS if limit is None else limit - HOT_BELOW_LIMIT
    if heat is not None and heat >= hot - EASE_CELSIUS:
        text = f"{device.name} has {heat:.0f} °C; it lowers its clock at {limit or hot:.0f} °C"
        yield Sign(AlarmKind.HOT, device.id, text, heat >= hot)
    used, total = device.memory_used_bytes, device.memory_total_bytes
    if used is not None and total and used / total >= FULL - EASE:
        text = f"{(total - used) / GIB:.2f} of {total / GIB:.1f} GiB of {device.name} are free"
        yield Sign(AlarmKind.MEMORY_FULL, device.id, text, used / total >= FULL)
    reasons = [reason for reason in device.throttled if reason not in NORMAL]
    if reasons:
        text = f"{device.name} runs slower than it could: {', '.join(reasons)}"
        yield Sign(AlarmKind.THROTTLED, device.id, text, is_strong=True, held_s=THROTTLED_S)
    if device.last_error is not None and at - device.last_error.at < ERROR_S:
        text = f"the driver reported Xid {device.last_error.code} for {device.name}"
        yield Sign(AlarmKind.DRIVER_ERROR, device.id, text, is_strong=True, held_s=0.0)
    elif device.ecc_uncorrected_errors:
        text = f"{device.ecc_uncorrected_errors} errors in the memory of {device.name}"
        yield Sign(AlarmKind.DRIVER_ERROR, device.id, text, is_strong=True, held_s=0.0)


def _of_host(host: Host) -> Iterator[Sign]:
    free, total = host.memory_available_bytes, host.memory_total_bytes
    if total and 1 - free / total >= HOST_FULL - EASE:
        text = f"{free / GIB:.2f} of {total / GIB:.1f} GiB of memory are free"
        yield Sign(AlarmKind.MEMORY_FULL, "host", text, 1 - free / total >= HOST_FULL)
    free, total = host.disk_free_bytes, host.disk_total_bytes
    least = min(DISK_FREE_BYTES, DISK_FREE_RATIO * total)
    if total and free < 1.1 * least:
        text = f"{free / GIB:.2f} of {total / GIB:.1f} GiB of the runtime folder's disk are free"
        yield Sign(AlarmKind.DISK_FULL, "host", text, free < least)
