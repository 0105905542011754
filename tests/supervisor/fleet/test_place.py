"""A place's state: only its own methods change it, and never out of turn."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from gpufc.errors import Overloaded
from supervisor.fleet.place import PlaceState
from tests.supervisor.fleet.scripted import BROKEN, Bench, Script


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.start()
    yield made
    await made.close()


async def test_a_replacement_that_succeeds_leaves_the_new_spec_serving(bench: Bench) -> None:
    place = bench.place
    wanted = msgspec.structs.replace(place.spec, model="other")
    with place.begin_replacement():
        assert place.state is PlaceState.REPLACING
        place.vacate()
        assert place.state is PlaceState.VACANT
        place.serve(wanted)
        assert (place.state, place.spec) == (PlaceState.SERVING, wanted)
    assert not place.is_busy


async def test_a_replacement_that_fails_leaves_the_place_serving(bench: Bench) -> None:
    place, spec = bench.place, bench.place.spec

    def fail() -> None:
        with place.begin_replacement():
            place.vacate()
            raise RuntimeError("it failed")

    with pytest.raises(RuntimeError, match="it failed"):
        fail()
    assert (place.state, place.spec) == (PlaceState.SERVING, spec)


async def test_a_second_replacement_is_refused(bench: Bench) -> None:
    with (
        bench.place.begin_replacement(),
        pytest.raises(Overloaded, match="default-0 is being replaced"),
        bench.place.begin_replacement(),
    ):
        pytest.fail("two at once")
    assert not bench.place.is_busy


async def test_a_place_is_not_vacated_without_a_replacement(bench: Bench) -> None:
    with pytest.raises(AssertionError):
        bench.place.vacate()
    with pytest.raises(AssertionError):
        bench.place.serve(bench.place.spec)
    assert bench.place.state is PlaceState.SERVING


async def test_a_retired_worker_that_fails_for_good_is_forgotten(bench: Bench) -> None:
    place = bench.place
    bench.edge.scripts["/broken"] = Script(loads=(BROKEN,))
    config = msgspec.structs.replace(place.spec.config, model_path="/broken")
    place.retire(await place.nominate(msgspec.structs.replace(place.spec, config=config)))
    place.candidate = None
    async with asyncio.timeout(60):
        while place.is_retiring:
            await place.wait_changed(place.n_changes)
    assert place.has_worker
