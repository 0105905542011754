"""Every control message between a front and a worker host. Imperatives go down, facts come up.

One connection for each machine carries these messages and the relayed frames of its workers' links
(`supervisor/cluster/wire.py`). It keeps their order: `Exited` comes after the worker's last frame.

    host                                        front
    HostHello(key, held)            ──▶         key known, versions equal?
                                    ◀──         Welcome(lease_s, adopt)         or Refused
                                    ◀──         Lease, every `LEASE_S` / 4
    HostVitals, HostDevices         ──▶
                                    ◀──         Obtain(epoch, models), for a model with files
    Obtained(epoch)                 ──▶         or NotObtained; `AskPiece`, `Piece` in between
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

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import Boot
from supervisor.devices.snapshot import Snapshot

HOST_PROTOCOL = 4

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

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Meta(pattern=r"^[^/\x00-\x1f.][^/\x00-\x1f]{0,199}$")]
"""A file's own name: it leads to no other folder, and is not hidden."""

PIECE_BYTES = 128 * 1024
"""The largest part of a model's file in one message. It delays others by as long as it takes."""

MAX_PARTS = 256
"""Files of one split model."""

MAX_MODELS = 128
"""Model files of one worker: the model, a draft model, adapters, a chat template."""

Text = Annotated[str, Meta(max_length=1024)]
Word = Annotated[str, Meta(max_length=128)]


class HostMessage(Struct, frozen=True, array_like=True, tag=True):
    """The base of all messages."""


class ModelPart(Struct, frozen=True, array_like=True):
    """One file of a model as the front has it. `number` names it in `AskPiece`.

    `sample` is its `sample_digest`. `sha256` is None until the front has read the whole file.
    """

    number: int
    name: FileName
    size: Annotated[int, Meta(ge=0)]
    sample: Sha256
    sha256: Sha256 | None = None


class WantedModel(Struct, frozen=True, array_like=True):
    """A model, draft model, adapter or template. `path` is its first part's in the boot message."""

    path: Annotated[str, Meta(max_length=4096)]
    parts: Annotated[tuple[ModelPart, ...], Meta(min_length=1, max_length=MAX_PARTS)]


class Trouble(StrEnum):
    """Why a host does not get a model's files."""

    NO_SPACE = "no_space"
    CHECKSUM = "checksum"
    CUT = "cut"
    UNREADABLE = "unreadable"
    """The front cannot read the file any more."""
    STALLED = "stalled"
    FAILED = "failed"
    """The host's disk or its models folder."""


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


class Ending(HostMessage, frozen=True):
    """The process runs no more, and its memory is being given back. `Exited` follows, with the same
    cause. Its frames until then have been relayed."""

    epoch: Epoch
    si_code: int
    si_status: int
    oom: bool


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


class Lacking(HostMessage, frozen=True):
    """Some files of `Obtain` are not where the front has them: the host needs all checksums. It
    gets another `Obtain` with them, when it is its turn."""

    epoch: Epoch


class Obtaining(HostMessage, frozen=True):
    """Progress: `action` is a word such as `copying`, and bytes are of all files that it needs."""

    epoch: Epoch
    action: Word
    name: FileName
    done_bytes: int
    total_bytes: int


class Obtained(HostMessage, frozen=True):
    """All files are there. `Spawn` of this epoch uses them."""

    epoch: Epoch


class NotObtained(HostMessage, frozen=True):
    """The files cannot be had. Bytes that came are kept for another attempt."""

    epoch: Epoch
    trouble: Trouble
    detail: Text


class AskPiece(HostMessage, frozen=True):
    """Send the piece of a part's file at `offset`. Answered by a `Piece`, in order.

    `receipt` is that of the last piece that has come over this connection, of any epoch; 0 before
    the first one. A front sends a host only so many pieces without it."""

    epoch: Epoch
    number: int
    offset: Annotated[int, Meta(ge=0)]
    receipt: int = 0


class Leaving(HostMessage, frozen=True):
    """The host was asked to end. It goes on until `Leave`, or for `drain_s` at most."""

    reason: Text
    drain_s: float


FromHost = (
    HostHello
    | Spawned
    | SpawnFailed
    | Ending
    | Exited
    | LinkBroken
    | HostVitals
    | HostDevices
    | Lacking
    | Obtaining
    | Obtained
    | NotObtained
    | AskPiece
    | Leaving
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


class Obtain(HostMessage, frozen=True):
    """Have the files of a worker at hand. Answered by `Obtained`, `NotObtained` or `Lacking`.

    The host takes the files at their paths if they are the same ones, else equal ones of its own
    models folder, else a copy from `mirror` (a URL, before the files' names) or from the front.
    """

    epoch: Epoch
    models: Annotated[tuple[WantedModel, ...], Meta(max_length=MAX_MODELS)]
    mirror: Annotated[str, Meta(max_length=1024)] = ""


class Piece(HostMessage, frozen=True):
    """`PIECE_BYTES` of a file, or fewer at its end. `fault` says why the front cannot read it.
    `receipt` is random: only a host that has read the piece can return it."""

    epoch: Epoch
    number: int
    offset: int
    data: Annotated[bytes, Meta(max_length=PIECE_BYTES)]
    fault: Text = ""
    receipt: int = 0


class Forgo(HostMessage, frozen=True):
    """The files of this epoch are not needed any more. Bytes that came are kept."""

    epoch: Epoch


class Spawn(HostMessage, frozen=True):
    """Start a worker of `boot.epoch`. The host sets `boot.endpoint` to its own link, and the paths
    of files that it has obtained to its own. Answered by `Spawned` or `SpawnFailed`."""

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


ToHost = Welcome | Refused | Lease | Obtain | Piece | Forgo | Spawn | Signal | CloseLink | Leave
