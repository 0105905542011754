"""The simulation of many machines, on a small scale: every stream of a dead rack goes on soon."""

from scripts.lab.machines import Load, share, simulated

SMALL = Load(machines=32, streams=200, slots=10, racks=1, rack=8, seconds=16.0)


async def test_a_rack_dies_and_all_its_streams_go_on_within_seconds() -> None:
    found = await simulated(SMALL)
    assert found.hit > 20
    assert (found.failed, found.stuck) == (0, 0)
    assert share(found.resumed, 1.0) < 3.0
    assert share(found.first, 1.0) < 10.0  # requests to a machine that is dead, not given up yet


async def test_with_fewer_slots_than_streams_replays_go_first_and_all_go_on() -> None:
    found = await simulated(SMALL._replace(slots=7))
    assert (found.failed, found.stuck) == (0, 0)
    assert share(found.resumed, 1.0) < 8.0
