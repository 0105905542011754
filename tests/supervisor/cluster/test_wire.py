"""Frames between front and host, whole and damaged."""

import random

import pytest
from msgspec import structs

from gpufc.config import ModelConfig
from gpufc.errors import LinkError
from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import Boot
from supervisor.cluster import wire
from supervisor.cluster.messages import (
    HOST_PROTOCOL,
    MAX_CONTROL_BYTES,
    MAX_HELLO_BYTES,
    MAX_LOG_BYTES,
    MAX_WORKERS,
    Adoption,
    CloseLink,
    DeviceSummary,
    Ending,
    Exited,
    Held,
    HostDevices,
    HostHello,
    HostMessage,
    HostVitals,
    Lease,
    Leave,
    Leaving,
    LinkBroken,
    Refused,
    Signal,
    Spawn,
    Spawned,
    SpawnFailed,
    Welcome,
    WorkerVitals,
)
from supervisor.devices.snapshot import Device, Host, Snapshot, Source, SourceState
from tests.supervisor.cluster.hosts import hello

KEY = "ab" * 32
BOOT = Boot(Epoch(7), WorkerName("default-0"), "", "t" * 32, ModelConfig(model_path="/m.gguf"), 4)
DEVICE = Device(index=0, name="GPU", kind="cuda", memory_total_bytes=1)
SNAPSHOT = Snapshot(
    host=Host(cpu_count=4),
    devices=(DEVICE,),
    sources=(Source(name="host", state=SourceState.OK, age_s=0.5),),
)

UP: tuple[HostMessage, ...] = (
    hello(KEY),
    Spawned(Epoch(7), 99),
    SpawnFailed(Epoch(7), 11, "no process"),
    Ending(Epoch(7), 2, 9, True),
    Exited(Epoch(7), 2, 9, True, b"last words"),
    LinkBroken(Epoch(7), "left"),
    HostVitals((WorkerVitals(Epoch(7), "S", 1.5, 2, 4096, None),)),
    HostDevices(SNAPSHOT),
    Leaving("SIGTERM", 30.0),
)
DOWN: tuple[HostMessage, ...] = (
    Welcome("run", "node", 10.0, (Adoption(99, Epoch(8), WorkerName("default-0"), "t"),)),
    Refused("no", True),
    Lease(),
    Spawn(BOOT),
    Signal(Epoch(7), 9, True),
    CloseLink(Epoch(7)),
    Leave("drained"),
)


@pytest.mark.parametrize("message", UP, ids=lambda message: type(message).__name__)
def test_up(message: HostMessage) -> None:
    epoch, payload = wire.split(wire.control(message))
    assert (epoch, wire.decode_from_host(payload)) == (wire.CONTROL, message)
    with pytest.raises(LinkError):
        wire.decode_to_host(payload)


@pytest.mark.parametrize("message", DOWN, ids=lambda message: type(message).__name__)
def test_down(message: HostMessage) -> None:
    epoch, payload = wire.split(wire.control(message))
    assert (epoch, wire.decode_to_host(payload)) == (wire.CONTROL, message)
    with pytest.raises(LinkError):
        wire.decode_from_host(payload)


def test_a_relayed_frame_keeps_its_bytes() -> None:
    for payload in (b"", b"\0" * 8, b"\xff" * 1000):
        epoch, found = wire.split(wire.relayed(Epoch(2**40), payload))
        assert (epoch, bytes(found)) == (2**40, payload)


@pytest.mark.parametrize("frame", [b"", b"\0", b"\0" * 7])
def test_a_frame_without_a_header_breaks_the_protocol(frame: bytes) -> None:
    with pytest.raises(LinkError):
        wire.split(frame)


def test_the_largest_hello_fits() -> None:
    device = DeviceSummary("d" * 16, 15, "n" * 128, 2**40)
    held = Held(Epoch(2**32), 2**22, WorkerName("a-long-model-name-10"), "f" * 16)
    largest = HostHello(
        *(1, 6, "0" * 16, "r" * 16, KEY, "n" * 63, 2**10, 2**50),
        (device,) * 16,
        "r" * 16,
        (held,) * MAX_WORKERS,
    )
    assert len(wire.control(largest)) <= MAX_HELLO_BYTES


def test_the_largest_reports_fit() -> None:
    vitals = WorkerVitals(Epoch(2**32), "S", 1e9, 2**40, 2**50, 2**50)
    for message in (
        Exited(Epoch(2**60), 3, 9, True, b"x" * MAX_LOG_BYTES),
        HostVitals((vitals,) * MAX_WORKERS),
        HostDevices(Snapshot(host=Host(), devices=(DEVICE,) * 64, sources=())),
    ):
        assert len(wire.control(message)) < MAX_CONTROL_BYTES


def test_a_message_over_the_limit_is_the_senders_error() -> None:
    with pytest.raises(LinkError, match="limit"):
        wire.control(Exited(Epoch(1), 2, 9, False, b"x" * (MAX_CONTROL_BYTES + 1)))
    with pytest.raises(LinkError, match="limit"):
        wire.decode_from_host(bytes(MAX_CONTROL_BYTES + 1))


@pytest.mark.parametrize(
    "message",
    [
        Exited(Epoch(1), 2, 9, False, b"x" * (MAX_LOG_BYTES + 1)),
        SpawnFailed(Epoch(1), 1, "x" * 1025),
        hello("no key"),
        hello(KEY, machine="a b"),
        hello(KEY, machine="\x1b[2J"),
        hello(KEY, machine="n" * 64),
        HostVitals((WorkerVitals(Epoch(7), "S", 1.5, 2, 4096, None),) * (MAX_WORKERS + 1)),
    ],
    ids=str,
)
def test_a_host_that_says_too_much_breaks_the_protocol(message: HostMessage) -> None:
    _, payload = wire.split(wire.control(message))
    with pytest.raises(LinkError):
        wire.decode_from_host(payload)


@pytest.mark.parametrize("number", [0, -1, 32, 64])
def test_a_signal_that_is_none_breaks_the_protocol(number: int) -> None:
    _, payload = wire.split(wire.control(Signal(Epoch(1), number)))
    with pytest.raises(LinkError):
        wire.decode_to_host(payload)


def test_damaged_messages_are_refused_or_read_never_an_accident() -> None:
    dice = random.Random(22)
    for message in (*UP, *DOWN) * 100:
        data = bytearray(wire.control(message))
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        del data[dice.randrange(len(data)) :]
        for decode in (wire.decode_from_host, wire.decode_to_host):
            try:
                decode(wire.split(bytes(data))[1])
            except LinkError:
                continue


def test_secrets_are_in_no_repr() -> None:
    assert BOOT.token not in repr(Spawn(BOOT))
    assert "secret" not in repr(Adoption(1, Epoch(2), WorkerName("w"), "secret"))


def test_a_digest_tells_models_apart_but_not_places() -> None:
    same = structs.replace(
        BOOT, epoch=Epoch(9), worker=WorkerName("default-1"), token="other", is_awaited=True
    )
    other = structs.replace(BOOT, n_sequences=5)
    assert wire.boot_digest(same) == wire.boot_digest(BOOT) != wire.boot_digest(other)


def test_a_digest_is_the_same_in_all_versions_of_a_protocol() -> None:
    """A new field of `Boot` or `ModelConfig` belongs into `LATER_FIELDS`. A digest that changes for
    another reason needs another `HOST_PROTOCOL`: an upgraded front adopts hosts' workers by it."""
    assert (HOST_PROTOCOL, wire.boot_digest(BOOT)) == (4, "99b2352efeb45e69")


def test_a_later_field_is_told_apart_only_by_another_value_than_its_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = wire.boot_digest(BOOT)
    monkeypatch.setattr(wire, "LATER_FIELDS", wire.LATER_FIELDS | {"log_format", "n_ctx"})
    without = wire.boot_digest(BOOT)
    assert without != known  # that of a host which does not know them
    longer = structs.replace(BOOT, model=structs.replace(BOOT.model, n_ctx=77))
    for changed in (longer, structs.replace(BOOT, log_format="json")):
        assert wire.boot_digest(changed) != without
