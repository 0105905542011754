"""Workers that a host brings back: which of them are adopted."""

import signal

from gpufc.config import ModelConfig
from gpufc.ids import Epoch, WorkerName
from gpufc.protocol import PROTOCOL_VERSION, Hello
from supervisor.cluster.wire import boot_digest
from supervisor.fleet import events as ev
from supervisor.fleet.states import WorkerState
from supervisor.fleet.worker import WorkerSpec
from tests.fakes.child_worker import ready
from tests.supervisor.remote.conftest import Bench
from tests.supervisor.remote.fake_channel import FakeChannel, held, listening


async def test_a_worker_that_its_host_brings_back_goes_on_without_a_load(bench: Bench) -> None:
    line, host = bench.line(), bench.host("a")
    await bench.ready_on(line, host)
    edge = bench.machines.edge()
    edge.place(Epoch(0), line.spec, listening([]))
    digest = edge.digest(None)
    edge.unplace()
    host.lose()
    await line.until_it_waits()
    again = bench.host("a", held=(held(line.spec.name, digest), held(line.spec.name, digest, 101)))
    (adoption,) = again.adoptions  # type: ignore[attr-defined]
    assert (adoption.pid, adoption.worker, adoption.epoch) == (100, "m-0", 2)
    again.say(Hello(adoption.epoch, PROTOCOL_VERSION, adoption.token, 100))  # at once
    again.say(ready(adoption.epoch))
    await line.until(WorkerState.READY)
    assert again.spawns() == []
    assert line.runner.status().pid == 100


async def test_a_worker_that_is_brought_back_to_a_line_that_stops_is_ended(bench: Bench) -> None:
    line = bench.line()
    await line.until_it_waits()
    line.runner.post(ev.StopRequested())
    digest = boot_digest(line.spec.boot(Epoch(1), "", ""))
    host = bench.host("a", held=(held(line.spec.name, digest),))
    assert len(host.adoptions) == 1  # type: ignore[attr-defined]
    await line.until(WorkerState.STOPPED)
    assert [(one.epoch, one.number) for one in host.signals()] == [(1, signal.SIGKILL)]
    assert host.listeners == {}
    assert bench.machines.hosts.free_slots("a") == [0]


async def test_an_idle_machine_does_not_load_what_another_brings_back(bench: Bench) -> None:
    line = bench.line()
    bench.machines.await_return(2.0)
    await line.until_it_waits()
    idle = bench.host("idle")
    digest = boot_digest(line.spec.boot(Epoch(1), "", ""))
    host = bench.host("a", held=(held(line.spec.name, digest),))
    assert len(host.adoptions) == 1  # type: ignore[attr-defined]
    assert idle.spawns() == []
    other = bench.line("m-1")  # its machine does not come back
    await other.until_it_waits()
    assert other.runner.awaited == "waiting for its machine to come back"
    bench.now += 2.0
    bench.machines.changed()
    await bench.ready_on(other, idle)


async def test_a_line_is_made_for_a_worker_that_a_host_still_has(bench: Bench) -> None:
    """The front before had loaded its model for a request, and was killed."""
    asked: list[str] = []

    def wants_line(worker: str) -> bool:
        asked.append(worker)
        return worker == "m-0"

    bench.machines.wants_line = wants_line
    bench.machines.await_return(2.0)
    config = ModelConfig(model_path="/m.gguf")
    spec = WorkerSpec(WorkerName("m-0"), "m", config, 4, "info", is_remote=True)
    digest = boot_digest(spec.boot(Epoch(1), "", ""))
    hello = FakeChannel("a", bench.machines, (held(spec.name, digest),)).hello
    other = FakeChannel("b", bench.machines, (held(WorkerName("gone-0"), digest),)).hello
    assert bench.machines.is_early(hello)
    assert not bench.machines.is_early(other)
    assert asked == ["m-0", "gone-0"]
    line = bench.line()
    await line.until_it_waits()
    assert not bench.machines.is_early(hello)
    host = bench.host("a", held=hello.held)
    assert len(host.adoptions) == 1  # type: ignore[attr-defined]


async def test_no_line_is_made_once_hosts_have_had_their_time_to_come_back(bench: Bench) -> None:
    bench.machines.wants_line = lambda worker: True
    bench.machines.await_return(2.0)
    hello = FakeChannel("a", bench.machines, (held(WorkerName("m-0"), "digest"),)).hello
    assert bench.machines.is_early(hello)
    bench.now += 2.0  # its model could not be loaded
    assert not bench.machines.is_early(hello)


async def test_a_worker_of_an_equal_epoch_is_not_adopted(bench: Bench) -> None:
    """Another front gave it that number: late answers to that front would count as this one's."""
    line = bench.line()
    await line.until_it_waits()
    digest = boot_digest(line.spec.boot(Epoch(1), "", ""))
    host = bench.host("a", held=(held(line.spec.name, digest, epoch=1),))
    assert host.adoptions == []  # type: ignore[attr-defined]
    await bench.ready_on(line, host)


async def test_a_worker_of_other_settings_is_not_adopted(bench: Bench) -> None:
    line = bench.line()
    await line.until_it_waits()
    host = bench.host("a", held=(held(line.spec.name, "another"),))
    assert host.adoptions == []  # type: ignore[attr-defined]
    await bench.ready_on(line, host)
