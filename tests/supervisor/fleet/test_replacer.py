"""One worker replaced by another: which one serves when, and the way back if the new one fails."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from gpufc.errors import EngineUnavailable, Overloaded, SwapRefused
from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import EngineFailed, Refused
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.ladder import Timings
from supervisor.fleet.port import ConditionStatus, ReplacementStage, SpareState
from tests.supervisor.fleet.fake_edge import KILLED
from tests.supervisor.fleet.scripted import BROKEN, OUT_OF_MEMORY, Bench, Script, memory_short

OTHER = Script(fingerprint="other")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.start()
    yield bench
    await bench.close()


# restart


async def test_a_restart_has_the_new_worker_tried_before_the_old_one_is_given_up(
    bench: Bench,
) -> None:
    await bench.restart()
    assert bench.calls == ["ready 1", "ready 2", "lost 1"]
    assert bench.listener.lost[0].reason is Reason.RESTARTED
    runner = bench.place.runner
    await runner.wait_until(lambda: (last := runner.status().last_exit) and last.code == 0)
    (row,) = bench.place.workers()
    assert (row.epoch, row.state, row.restarts) == (2, "ready", 1)
    assert row.last_exit is not None
    assert row.last_exit.reason is Reason.RESTARTED
    assert bench.restarts == [Reason.RESTARTED]
    assert bench.place.spares() == []


async def test_progress_is_told_from_loading_to_ready(bench: Bench) -> None:
    await bench.restart()
    stages = ReplacementStage
    assert bench.stages == [stages.LOADING, stages.TRYING, stages.READY]
    assert bench.told[-1].epoch == 2
    assert any(told.fraction == 0.5 for told in bench.told)


async def test_nobody_hears_of_a_candidate_and_its_row_is_a_spares(bench: Bench) -> None:
    bench.edge.scripts["/old"] = Script(is_slow=True)
    restart = asyncio.create_task(bench.restart())
    await bench.until_changed(lambda: bench.place.spares())
    assert [row.epoch for row in bench.place.workers()] == [1]
    assert bench.place.condition().status is ConditionStatus.OK
    await bench.until_changed(lambda: bench.place.spares()[0].state is SpareState.LOADING)
    bench.edge.finish_load(2)
    await restart
    assert bench.calls[:2] == ["ready 1", "ready 2"]


async def test_computed_kv_is_carried_over_before_the_new_worker_serves(bench: Bench) -> None:
    await bench.restart()
    assert bench.edge.log == ["export 1", "import 2", "shutdown 1"]


async def test_with_no_memory_for_it_the_successor_prefills() -> None:
    bench = Bench(handover_kv_bytes=0)
    await bench.start()
    await bench.restart()
    assert bench.edge.log == ["shutdown 1"]
    await bench.close()


async def test_the_second_worker_gets_as_many_cells_as_the_first_one_has(bench: Bench) -> None:
    await bench.restart()
    assert [boot.model.kv_cells for boot in bench.edge.booted] == [None, 2048]


async def test_a_new_worker_that_does_not_load_leaves_the_old_one_serving(bench: Bench) -> None:
    bench.edge.scripts["/old"] = Script(loads=(None, BROKEN))
    bench.edge._n_loads["/old"] = 1
    with pytest.raises(EngineUnavailable, match="serves on: the file is cut off"):
        await bench.restart()
    assert bench.calls == ["ready 1"]
    assert bench.place.condition().status is ConditionStatus.OK
    assert not bench.place.is_busy
    await bench.restart()
    assert bench.calls == ["ready 1", "ready 3", "lost 1"]


@pytest.mark.parametrize("short", [memory_short(10), OUT_OF_MEMORY])
async def test_where_there_is_not_room_for_both_the_old_worker_ends_first(
    bench: Bench, short: object
) -> None:
    bench.edge.scripts["/old"] = Script(loads=(None, short))  # type: ignore[arg-type]
    bench.edge._n_loads["/old"] = 1
    await bench.restart()
    assert bench.calls == ["ready 1", "lost 1", "ready 3"]
    assert ReplacementStage.STOPPING in bench.stages
    assert bench.stages[-1] is ReplacementStage.READY


async def test_restart_now_loads_nothing_before(bench: Bench) -> None:
    await bench.restart(now=True)
    assert bench.calls == ["ready 1", "lost 1", "ready 2"]


async def test_a_worker_that_does_not_serve_is_replaced_where_it_is() -> None:
    bench = Bench()
    bench.edge.scripts["/old"] = Script(loads=(BROKEN,))
    bench.place.start()
    await bench.until_changed(lambda: bench.place.condition().status is ConditionStatus.FAILED)
    await bench.restart()
    assert bench.calls == ["ready 2"]
    await bench.close()


async def test_a_new_worker_that_dies_before_it_takes_over_changes_nothing(bench: Bench) -> None:
    bench.edge.scripts["/old"] = Script(dies_in_handover=True)
    with pytest.raises(EngineUnavailable, match="serves on: it died before it took over"):
        await bench.restart()
    with pytest.raises(SwapRefused, match="it died before it took over"):
        await bench.swap("/old", n_ctx=1024)
    assert bench.calls == ["ready 1"]
    assert bench.place.spares() == []


async def test_while_one_is_going_on_another_replacement_is_refused(bench: Bench) -> None:
    bench.edge.scripts["/old"] = Script(is_slow=True)
    restart = asyncio.create_task(bench.restart())
    await bench.until_changed(lambda: bench.place.is_busy)
    with pytest.raises(Overloaded, match="being replaced just now"):
        await bench.swap()
    await bench.until_changed(lambda: bench.place.spares()[0].state is SpareState.LOADING)
    bench.edge.finish_load(2)
    await restart
    await bench.swap()


async def test_the_death_of_the_old_worker_meanwhile_disturbs_no_restart(bench: Bench) -> None:
    bench.edge.scripts["/old"] = Script(is_slow=True)
    restart = asyncio.create_task(bench.restart())
    await bench.until_changed(
        lambda: bench.place.spares() and bench.place.spares()[0].state is SpareState.LOADING
    )
    bench.edge.process_of(1).exit(KILLED)
    await bench.until("lost 1")
    bench.edge.finish_load(2)
    await restart
    assert bench.calls == ["ready 1", "lost 1", "ready 2"]
    (row,) = bench.place.workers()
    assert (row.epoch, row.restarts) == (2, 1)


# swap


async def test_a_swap_lets_the_old_worker_finish_what_it_has_begun(bench: Bench) -> None:
    bench.edge.scripts["/new"] = OTHER
    await bench.swap()
    assert bench.calls == ["ready 1", "ready 2", "draining 1"]
    assert [row.model_path for row in bench.place.workers()] == ["/new", "/old"]
    assert bench.edge.log == []
    bench.listener.ready[0].drained()
    await bench.until("lost 1")
    assert bench.listener.lost[0].reason is Reason.SWAPPED
    await bench.until_changed(lambda: len(bench.place.workers()) == 1)
    assert bench.edge.log == ["shutdown 1"]


async def test_an_old_worker_that_dies_while_it_drains_is_started_again_and_drained(
    bench: Bench,
) -> None:
    bench.edge.scripts["/new"] = OTHER
    await bench.swap()
    bench.edge.process_of(1).exit(KILLED)
    await bench.until("draining 3")
    assert bench.calls == ["ready 1", "ready 2", "draining 1", "lost 1", "ready 3", "draining 3"]
    bench.listener.ready[2].drained()
    await bench.until("lost 3")


async def test_an_old_worker_that_dies_while_the_new_model_loads_comes_back_to_be_drained(
    bench: Bench,
) -> None:
    bench.edge.scripts |= {"/new": msgspec.structs.replace(OTHER, is_slow=True)}
    swap = asyncio.create_task(bench.swap())
    await bench.until_changed(
        lambda: bench.place.spares() and bench.place.spares()[0].state is SpareState.LOADING
    )
    bench.edge.scripts["/old"] = Script(is_slow=True)
    bench.edge.process_of(1).exit(KILLED)
    await bench.until("lost 1")
    bench.edge.finish_load(2)
    await swap
    await bench.until_changed(lambda: bench.place.workers()[-1].state == "loading")
    bench.edge.finish_load(3)
    await bench.until("draining 3")
    assert bench.calls == ["ready 1", "lost 1", "ready 2", "ready 3", "draining 3"]
    bench.listener.ready[2].drained()
    await bench.until("lost 3")


async def test_the_same_model_with_a_larger_context_takes_the_streams_over(bench: Bench) -> None:
    await bench.swap("/old", n_ctx=1024)
    assert bench.calls == ["ready 1", "ready 2", "lost 1"]
    assert bench.edge.log == ["export 1", "import 2", "shutdown 1"]


async def test_with_a_smaller_context_long_streams_end_where_they_are(bench: Bench) -> None:
    await bench.swap("/old", n_ctx=256)
    assert bench.calls == ["ready 1", "ready 2", "draining 1"]


async def test_later_processes_have_the_swapped_model(bench: Bench) -> None:
    bench.edge.scripts["/new"] = OTHER
    await bench.swap(n_ctx=64, n_gpu_layers=3)
    await bench.restart()
    models = [boot.model for boot in bench.edge.booted]
    assert [(m.model_path, m.n_ctx, m.n_gpu_layers) for m in models[1:]] == [("/new", 64, 3)] * 2


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (Script(loads=(BROKEN,)), "the file is cut off"),
        (Script(loads=(KILLED,)), "killed"),
        (Script(trial=KILLED), "killed"),
        (
            Script(trial=EngineFailed(Epoch(0), "nan", (RequestNo(0),))),
            "its trial failed: nan",
        ),
        (Script(trial=Refused(Epoch(0), RequestNo(0), "x", "no template")), "no template"),
        (Script(loads=(memory_short(1 << 50),)), "not enough memory"),
        (Script(loads=(OUT_OF_MEMORY,)), "out_of_memory"),
    ],
)
async def test_a_model_that_cannot_be_used_is_refused_and_the_old_one_serves_on(
    bench: Bench, script: Script, why: str
) -> None:
    bench.edge.scripts["/new"] = script
    with pytest.raises(SwapRefused, match=f"{why}.*; the model before goes on serving"):
        await bench.swap()
    assert bench.calls == ["ready 1"]
    assert bench.place.condition().status is ConditionStatus.OK
    assert [row.model_path for row in bench.place.workers()] == ["/old"]
    assert bench.place.spares() == []
    assert bench.restarts == []


async def test_a_trial_that_does_not_end_is_a_failure(bench: Bench) -> None:
    bench.timings = Timings(trial_s=0.05)
    bench.edge.scripts["/new"] = Script(trial=None)
    with pytest.raises(SwapRefused, match=r"its trial failed: it did not end within 0\.05 s"):
        await bench.swap()
    assert bench.calls == ["ready 1"]


SHORT_ONCE = Script(fingerprint="other", loads=(memory_short(100, available=200),))


async def test_without_room_for_both_streams_end_then_the_new_model_is_loaded(
    bench: Bench,
) -> None:
    bench.edge.scripts["/new"] = SHORT_ONCE
    swap = asyncio.create_task(bench.swap())
    await bench.until("draining 1")
    assert bench.place.condition().status is ConditionStatus.RESTARTING
    assert bench.calls == ["ready 1", "draining 1"]
    bench.listener.ready[0].drained()
    await swap
    assert bench.calls == ["ready 1", "draining 1", "lost 1", "ready 3"]
    assert bench.stages[-4:] == ["draining", "loading", "trying", "ready"]


async def test_without_room_for_both_streams_of_the_same_model_wait(bench: Bench) -> None:
    bench.edge.scripts["/old"] = Script(loads=(None, memory_short(100, available=200)))
    bench.edge._n_loads["/old"] = 1
    await bench.swap("/old", n_ctx=1024)
    assert bench.calls == ["ready 1", "lost 1", "ready 3"]


async def test_requests_wait_for_a_candidate_only_where_the_worker_before_has_ended(
    bench: Bench,
) -> None:
    bench.edge.scripts["/new"] = SHORT_ONCE
    swap = asyncio.create_task(bench.swap())
    await bench.until("draining 1")
    bench.listener.ready[0].drained()
    await swap
    assert [boot.is_awaited for boot in bench.edge.booted] == [False, False, True]


async def test_requests_wait_for_the_candidate_in_the_place_of_a_failed_worker() -> None:
    bench = Bench()
    bench.edge.scripts["/old"] = Script(loads=(BROKEN,))
    bench.place.start()
    await bench.until_changed(lambda: bench.place.condition().status is ConditionStatus.FAILED)
    await bench.swap()
    assert [boot.is_awaited for boot in bench.edge.booted] == [False, True]
    await bench.close()


async def test_while_nothing_serves_the_condition_is_that_of_the_loading(bench: Bench) -> None:
    bench.edge.scripts["/new"] = Script(
        fingerprint="other", loads=(memory_short(100, available=200),), is_slow=True
    )
    swap = asyncio.create_task(bench.swap())
    await bench.until("draining 1")
    bench.listener.ready[0].drained()
    await bench.until_changed(
        lambda: bench.place.spares() and bench.place.spares()[0].state is SpareState.LOADING
    )
    condition = bench.place.condition()
    assert condition.status is ConditionStatus.LOADING
    bench.edge.finish_load(3)
    await swap
    assert bench.place.condition().status is ConditionStatus.OK


@pytest.mark.parametrize("second", [BROKEN, KILLED], ids=["does not load", "dies"])
async def test_if_it_fails_then_the_old_model_is_loaded_again(bench: Bench, second: object) -> None:
    bench.edge.scripts["/new"] = Script(
        fingerprint="other",
        loads=(memory_short(100, available=200), second),  # type: ignore[arg-type]
    )
    swap = asyncio.create_task(bench.swap())
    await bench.until("draining 1")
    bench.listener.ready[0].drained()
    with pytest.raises(SwapRefused, match="which is loaded again"):
        await swap
    assert bench.calls == ["ready 1", "draining 1", "lost 1", "ready 4"]
    assert bench.place.workers()[0].model_path == "/old"
    assert bench.place.condition().status is ConditionStatus.OK
    assert ReplacementStage.ROLLING_BACK in bench.stages
    await bench.restart()
    assert bench.calls[-2:] == ["ready 5", "lost 4"]


async def test_if_the_old_model_cannot_be_loaded_again_that_is_said(bench: Bench) -> None:
    bench.edge.scripts["/old"] = Script(loads=(None, BROKEN))
    bench.edge._n_loads["/old"] = 1
    bench.edge.scripts["/new"] = Script(
        fingerprint="other", loads=(memory_short(100, available=200), BROKEN)
    )
    swap = asyncio.create_task(bench.swap())
    await bench.until("draining 1")
    bench.listener.ready[0].drained()
    with pytest.raises(SwapRefused, match=r"the model before cannot be loaded again: .*cut off"):
        await swap
    assert bench.place.condition().status is ConditionStatus.FAILED


async def test_stopping_in_the_middle_of_a_swap_leaves_no_process(bench: Bench) -> None:
    bench.edge.scripts["/new"] = Script(is_slow=True)
    swap = asyncio.create_task(bench.swap())
    await bench.until_changed(lambda: bench.place.spares())
    swap.cancel()
    await asyncio.gather(swap, return_exceptions=True)
    bench.place.request_stop(now=False)
    async with asyncio.timeout(60):
        await bench.place.wait_stopped()
    assert not bench.place.is_busy
    assert [row.pid for row in bench.place.workers()] == [None]
