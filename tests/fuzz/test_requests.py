from tests.fuzz.requests import malformed, run
from tests.supervisor.http.conftest import running

N_REQUESTS = 300


async def test_no_malformed_request_gets_a_5xx_or_hurts_the_next_one() -> None:
    async with running(slots=16) as service:
        service.fleet.start_worker()
        tally = await run(*service.address, seed=1, numbers=range(N_REQUESTS))
        assert tally.violations == [], tally
        assert tally.statuses[400] > N_REQUESTS // 10
        assert (await service.complete()).status == 200
        assert service.dispatcher.idle


def test_a_request_is_made_from_its_number_alone() -> None:
    assert malformed(1, 7) == malformed(1, 7)
    assert len({malformed(1, number) for number in range(50)}) == 50
