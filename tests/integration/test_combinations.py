"""Random combinations of valid fields, whole and streamed, over the scripted engine."""

from collections.abc import Iterator

import pytest

from tests.fuzz.combinations import combination, run
from tests.integration.fake_service import FAKE
from tests.integration.test_every_shape import TEMPLATE
from tests.service import Service, service

N_FAST = 40
N_ALL = 600


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("combinations")
    template = folder / "template.jinja"
    template.write_text(TEMPLATE)
    environ = FAKE | {"GPUFC_CHAT_TEMPLATE": str(template), "GPUFC_FAKE_SCRIPT": "step_ms=0"}
    with service(folder / "run", environ=environ) as started:
        yield started


@pytest.mark.parametrize(
    "numbers", [range(N_FAST), pytest.param(range(N_FAST, N_ALL), marks=pytest.mark.slow)]
)
async def test_a_combination_is_answered_in_its_shape_or_refused_by_its_field(
    running: Service, numbers: range
) -> None:
    tally = await run(running.url, 1, numbers, scripted=True)
    assert not tally.faults
    assert tally.statuses["200"] > len(numbers) // 2


def test_a_combination_is_made_from_its_number_alone() -> None:
    made = [combination(1, number, scripted=True) for number in range(50)]
    assert made == [combination(1, number, scripted=True) for number in range(50)]
    assert len({str(body) for body in made}) == 50
