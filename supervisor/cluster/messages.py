"""Every control message between a front and a worker host. Imperatives go down, facts come up.

One connection for each machine carries these messages and the relayed frames of its workers' links
(`supervisor/cluster/wire.py`). It keeps their order: `Exited` comes after the worker's last frame.

    host                                        front
    HostHello(key, held)            ──▶         key known, versions equal?
                                    ◀──         Welcome(lease_s, adopt)         or Refused
                                    ◀──         Lease, every `LEASE_S` / 4
    HostVitals, HostDevices         ──▶
                                    ◀──         Spawn(epoch, boot)
    Spawned(epoch, pid)             ──▶                                         or SpawnFailed
    ═══ frames of the epoch, both ways, until `Exited` or `CloseLink` ═══
                                    ◀──         Signal(epoch, number)
    Exited(epoch, status, log)      ──▶

A worker is named by its epoch, which the front never reuses within a run. Exactly one `SpawnFailed`
or `Exited` ends an epoch, unless the connection is lost before. A front treats all epochs of a lost
connection as lost; the host keeps their processes until its lease is over and offers them in its
next hello (`Held`). Every one that the front does not adopt is killed then.

`HostHello` has no token: the CURVE handshake has proven that the host owns `key`, or that it holds
an invitation's key (`supervisor/cluster/book.py`). A secret never crosses the network.
"""

from typing import Annotated

from msgspec import Meta, Struct

from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import Boot
from supervisor.devices.snapshot import Snapshot

HOST_PROTOCOL = 1

MAX_CONTROL_BYTES = 256 * 1024
"""The largest control message that either side accepts."""

MAX_HELLO_BYTES = 8192
"""The largest message of a peer that has not said hello. The handshake has proven a key before."""

MAX_LOG_BYTES = 64 * 1024
MAX_WORKERS = 64
"""Processes that one host runs at a time."""

LEASE_S = 10.0
"""A host that has heard no `Lease` for so long ends its workers, unless `Welcome` names another
time."""

VITALS_S = 0.5
"""Time between two `HostVitals`. A front may take their absence for silence."""

DEVICES_S = 2.0

MachineName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
KeyText = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
"""A CURVE key of 32 bytes in hex."""

Text = Annotated[str, Meta(max_length=1024)]
Word = Annotated[str, Meta(max_length=128)]


class HostMessage(Struct, frozen=True, array_like=True, tag=True):
    """The base of all messages."""


# up: host to front


class DeviceSummary(Struct, frozen=True, array_like=True):
    """An accelerator, as placement sees it. Memory is None where the driver has no figure."""

    kind: Word
    index: int
    name: Word
    memory_bytes: int | None = None


class Held(Struct, frozen=True, array_like=True):
    """A worker process that was started over an earlier connection and still lives.

    `epoch` is that of its start, and `digest` that of its boot message (`wire.boot_digest`).
    """

    epoch: Epoch
    pid: int
    worker: WorkerName
    digest: Annotated[str, Meta(max_length=16)]


class HostHello(HostMessage, frozen=True):
    """The first message. `run` is random for each run of a host process.

    `key` is the host's public key from now on. `machine` is the name that it wants; `Welcome` says
    which it has. `held_of` is the run of the front that started the held workers: a front that has
    restarted does not know their epochs.
    """

    protocol: int
    worker_protocol: int
    version: Word
    run: Word
    key: KeyText
    machine: MachineName
    cores: int
    memory_bytes: int
    devices: Annotated[tuple[DeviceSummary, ...], Meta(max_length=16)] = ()
    held_of: Word = ""
    held: Annotated[tuple[Held, ...], Meta(max_length=MAX_WORKERS)] = ()


class Spawned(HostMessage, frozen=True):
    """The process of an epoch runs, and its link is open."""

    epoch: Epoch
    pid: int


class SpawnFailed(HostMessage, frozen=True):
    """The system refused a process or its link: an `OSError`. `errno` is 0 if it had none."""

    epoch: Epoch
    errno: int
    message: Text


class Exited(HostMessage, frozen=True):
    """The process has been reaped and all its frames have been relayed.

    `si_code` and `si_status` are those of waitid(2). `oom`: the kernel has counted a kill for lack
    of memory. `log` is the end of what it wrote.
    """

    epoch: Epoch
    si_code: int
    si_status: int
    oom: bool
    log: Annotated[bytes, Meta(max_length=MAX_LOG_BYTES)]


class LinkBroken(HostMessage, frozen=True):
    """The worker has left its link or does not read it. Its process may still run."""

    epoch: Epoch
    detail: Text


class WorkerVitals(Struct, frozen=True, array_like=True):
    """A worker process's state: the fields of `Vitals`, and memory in bytes.

    `anonymous_bytes` is None where the system does not tell."""

    epoch: Epoch
    run_state: Annotated[str, Meta(max_length=1)]
    cpu_s: float
    major_faults: int
    rss_bytes: int
    anonymous_bytes: int | None = None


class HostVitals(HostMessage, frozen=True):
    """Every `VITALS_S`: the state of all its workers."""

    workers: Annotated[tuple[WorkerVitals, ...], Meta(max_length=MAX_WORKERS)]


class HostDevices(HostMessage, frozen=True):
    """Every `DEVICES_S`: the machine's figures."""

    snapshot: Snapshot


class Leaving(HostMessage, frozen=True):
    """The host was asked to end. It goes on until `Leave`, or for `drain_s` at most."""

    reason: Text
    drain_s: float


FromHost = (
    HostHello | Spawned | SpawnFailed | Exited | LinkBroken | HostVitals | HostDevices | Leaving
)


# down: front to host


class Adoption(Struct, frozen=True, array_like=True):
    """Go on with a held process under a new epoch: the host sends it an `Attach` with this token.

    Its link begins anew with a hello. `Spawned` answers.
    """

    pid: int
    epoch: Epoch
    worker: WorkerName
    token: Annotated[str, Meta(max_length=128)]

    def __repr__(self) -> str:
        """Without the token, for logs and tracebacks."""
        return f"Adoption(pid={self.pid}, epoch={self.epoch}, worker={self.worker!r})"


class Welcome(HostMessage, frozen=True):
    """The answer to a hello, and the first lease. `front_run` is random for each run of a front.

    `machine` is the host's name at this front. Held processes that are not in `adopt` are killed;
    the front gets no message about them.
    """

    front_run: Word
    machine: MachineName
    lease_s: Annotated[float, Meta(ge=0.1, le=600.0)]
    adopt: Annotated[tuple[Adoption, ...], Meta(max_length=MAX_WORKERS)] = ()


class Refused(HostMessage, frozen=True):
    """The other answer to a hello: no lease. With `retryable` a later try may succeed."""

    reason: Text
    retryable: bool


class Lease(HostMessage, frozen=True):
    """The workers may live for another `Welcome.lease_s`."""


class Spawn(HostMessage, frozen=True):
    """Start a worker of `boot.epoch`. The host sets `boot.endpoint` to its own link. Answered by
    `Spawned` or `SpawnFailed`."""

    boot: Boot


class Signal(HostMessage, frozen=True):
    """Send a signal to a worker, or with `group` also to its children."""

    epoch: Epoch
    number: Annotated[int, Meta(ge=1, le=31)]
    group: bool = False


class CloseLink(HostMessage, frozen=True):
    """Relay no more frames of this epoch. Its process is not affected."""

    epoch: Epoch


class Leave(HostMessage, frozen=True):
    """End all workers, and then the host process."""

    reason: Text


ToHost = Welcome | Refused | Lease | Spawn | Signal | CloseLink | Leave
