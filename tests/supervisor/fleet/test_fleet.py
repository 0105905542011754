"""Names, conditions and small edges, without processes."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from gpufc.config import BackendKind, Config, ModelConfig
from gpufc.errors import ModelNotFound, Overloaded
from gpufc.ids import Epoch, WorkerName
from supervisor.fleet import events as ev
from supervisor.fleet.condition import of_group, of_lifecycle
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.group import Absence, Group
from supervisor.fleet.names import served_name
from supervisor.fleet.placer import PlacedEdge
from supervisor.fleet.port import Condition, ConditionStatus, ModelChange
from supervisor.fleet.process import scrubbed
from supervisor.fleet.states import WorkerState
from supervisor.fleet.worker import WorkerSpec
from supervisor.runtime_dir import RuntimeDir
from tests.supervisor.fleet.test_lifecycle import E1, KILLED, brought_to, lifecycle

OK = Condition(ConditionStatus.OK, "", 0.0)
FAILED = Condition(ConditionStatus.FAILED, "", 60.0)
SOON = Condition(ConditionStatus.RESTARTING, "soon", 1.0)
LATER = Condition(ConditionStatus.RESTARTING, "later", 20.0)


@pytest.mark.parametrize("name", [None, "Tiny", "tiny.Q4", "tiny.Q4.gguf", "default"])
async def test_the_only_model_answers_to_its_aliases(runtime: RuntimeDir, name: str) -> None:
    model = ModelConfig(model="Tiny", model_path="/m/tiny.Q4.gguf")
    fleet = Fleet(Config(models={"default": model}), runtime)
    assert fleet.models() == ["Tiny"]
    assert fleet.resolve(name) == "Tiny"
    with pytest.raises(ModelNotFound) as caught:
        fleet.resolve("gpt-4")
    assert caught.value.param == "model"
    await fleet.stop()


async def test_a_front_with_hosts_uses_no_epoch_of_a_front_before(runtime: RuntimeDir) -> None:
    config = Config(models={"default": ModelConfig(model_path="/m/tiny.gguf")})
    before = int(time.time())
    alone = Fleet(config, runtime)
    assert alone.succession.holdings().next_epoch == 1
    await alone.stop()
    fleet = Fleet(config, runtime, remote=lambda: cast(PlacedEdge, None))
    assert fleet.succession.holdings().next_epoch >= before
    await fleet.stop()


async def test_a_model_that_is_being_removed_is_not_handed_over(
    runtime: RuntimeDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(
        Config(models={"a": ModelConfig(model="a"), "b": ModelConfig(model="b")}), runtime
    )
    group = fleet.group("b")
    fleet.withdraw("b")
    assert fleet.succession.holdings().workers == ()
    monkeypatch.setattr(Group, "places", property(lambda one: [None] if one is group else []))
    with pytest.raises(Overloaded, match="removed"):
        fleet.succession.holdings()
    monkeypatch.undo()
    await fleet.stop()


async def test_a_request_that_waits_for_its_model_keeps_the_workers_here(
    runtime: RuntimeDir,
) -> None:
    fleet = Fleet(
        Config(models={"a": ModelConfig(model="a"), "b": ModelConfig(model="b")}), runtime
    )
    holdings = fleet.succession.holdings()
    assert fleet.succession.holds(holdings)
    fleet.group("b").absence = Absence("waiting for memory")
    assert not fleet.succession.holds(holdings)
    with pytest.raises(Overloaded, match="requests wait for b"):
        fleet.succession.holdings()
    fleet.group("b").absence = Absence("it does not fit", is_failure=True)
    assert fleet.succession.holds(holdings)
    await fleet.stop()


class SwappedPlace:
    """A place whose swap lets another replica be loaded, as the roster may do meanwhile."""

    def __init__(self, group: "SwappedGroup", path: str) -> None:
        self.group, self.path = group, path
        self.place = SimpleNamespace(spec=SimpleNamespace(model="m"))

    async def swap(self, change: ModelChange, *, tell: object) -> None:
        self.path = change.model_path
        self.group.staying += self.group.absent
        self.group.absent = []


class SwappedGroup:
    def __init__(self) -> None:
        self.staying = [SwappedPlace(self, "/old")]
        self.absent = [SwappedPlace(self, "/old")]
        self.later = WorkerSpec(WorkerName("m-2"), "m", ModelConfig(model_path="/old"), 1, "info")

    def respecify(self, change: Callable[[WorkerSpec], WorkerSpec]) -> None:
        self.later = change(self.later)


async def test_a_swap_reaches_all_replicas_whenever_they_are_loaded(runtime: RuntimeDir) -> None:
    fleet = Fleet(Config(models={"m": ModelConfig(model="m")}), runtime)
    group, before = SwappedGroup(), fleet.group("m")
    fleet._groups["m"] = cast(Group, group)
    await fleet.swap(None, ModelChange(model_path="/new"))
    assert [one.path for one in group.staying] == ["/new", "/new"]
    assert group.later.config.model_path == "/new"
    fleet._groups["m"] = before
    with pytest.raises(Overloaded, match="not in memory"):
        await fleet.swap(None, ModelChange(model_path="/new"))
    await fleet.stop()


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (ModelConfig(model="x", model_path="/a/b.gguf"), "x"),
        (ModelConfig(model_path="/a/b.Q4_1.gguf"), "b.Q4_1"),
        (ModelConfig(backend=BackendKind.FAKE), "fake"),
    ],
)
def test_served_name(config: ModelConfig, name: str) -> None:
    assert served_name(config) == name


@pytest.mark.parametrize(
    ("group", "expected"),
    [([FAILED, OK], OK), ([FAILED, LATER, SOON], SOON), ([FAILED], FAILED)],
)
def test_the_best_worker_speaks_for_the_group(group: list[Condition], expected: Condition) -> None:
    assert of_group(group) == expected


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (WorkerState.STOPPED, ConditionStatus.LOADING),
        (WorkerState.STARTING, ConditionStatus.LOADING),
        (WorkerState.LOADING, ConditionStatus.LOADING),
        (WorkerState.READY, ConditionStatus.OK),
        (WorkerState.DRAINING, ConditionStatus.DRAINING),
    ],
)
def test_condition_on_the_way_up(state: WorkerState, status: ConditionStatus) -> None:
    life = lifecycle() if state is WorkerState.STOPPED else brought_to(state)
    assert of_lifecycle(life, 1.0).status is status


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (ev.DeclaredHung(E1, "x"), ConditionStatus.HUNG),
        (ev.StopRequested(), ConditionStatus.DRAINING),
        (ev.RestartRequested(), ConditionStatus.RESTARTING),
        (ev.Exited(E1, KILLED), ConditionStatus.RESTARTING),
    ],
)
def test_condition_after(event: ev.Event, status: ConditionStatus) -> None:
    life = brought_to(WorkerState.READY)
    life.handle(event, 1.0)
    condition = of_lifecycle(life, 1.0)
    assert condition.status is status
    assert condition.retry_after_s > 0
    assert condition.detail


def test_second_start_is_a_restart() -> None:
    life = brought_to(WorkerState.READY)
    life.handle(ev.TokenProduced(E1), 1.0)
    life.handle(ev.Exited(E1, ExitReason(code=1, reason=Reason.EXITED, at=0.0)), 1.0)
    assert life.epoch == Epoch(2)
    assert of_lifecycle(life, 1.0).status is ConditionStatus.RESTARTING


def test_the_rest_of_a_load_is_estimated_from_what_it_took_so_far() -> None:
    life = brought_to(WorkerState.LOADING)  # since 0
    life.handle(ev.LoadProgress(E1, 0.25), 10.0)
    assert of_lifecycle(life, 10.0).retry_after_s == pytest.approx(30.0)


def test_environment_is_an_allow_list() -> None:
    environ = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "GGML_VK_VISIBLE_DEVICES": "0",
        "GPUFC_PORT": "1",
        "GPUFC_API_KEY": "s",
        "OPENAI_API_KEY": "s",
        "NCCL_NVLS_ENABLE": "0",
        "NVIDIA_API_KEY": "s",
        "AWS_SESSION_TOKEN": "s",
        "LD_PRELOAD": "x",
    }
    passed = scrubbed(environ)
    passed.pop("PYTHONPATH", None)
    assert passed == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "GGML_VK_VISIBLE_DEVICES": "0",
        "NCCL_NVLS_ENABLE": "0",
    }


def test_a_source_tree_is_found_by_the_worker() -> None:
    root = str(Path(__file__).parents[3])
    assert scrubbed({"PYTHONPATH": "/x"})["PYTHONPATH"] == os.pathsep.join((root, "/x"))
