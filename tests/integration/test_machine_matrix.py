"""The failure matrix, on three machines in namespaces: every text exact, every end named.

`scripts/chaos --machine-matrix` runs the same rows and prints verdicts and gaps.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.machine_matrix import (
    ROWS,
    Row,
    after_a_killed_front,
    run_row,
    settle,
    three_machines,
)
from tests.machines import cluster
from tests.namespaces import Space, lacking, space
from tests.service import wait_for

pytestmark = pytest.mark.slow


def require() -> None:
    """Skip where namespaces cannot be made. The summary counts what was skipped, and says why."""
    if (reason := lacking()) is not None:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Space]:
    require()
    with three_machines(tmp_path_factory.mktemp("matrix")) as made:
        yield made


def test_settling_changes_nothing(machines: Space) -> None:
    """The rows compare pids before and after it."""
    assert settle(machines) == settle(machines)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_no_stream_breaks_or_changes(machines: Space, row: Row) -> None:
    assert (await run_row(machines, row)).wrong == []


def test_a_killed_front_loads_nothing_anew(machines: Space) -> None:
    """The last one on these machines: its front is another one, and ends with the test."""
    assert after_a_killed_front(machines) == []


def test_a_machine_gets_a_model_that_it_does_not_have(tmp_path: Path) -> None:
    require()
    models = tmp_path / "models"
    models.mkdir()
    content = random.Random(1).randbytes(3_000_000)
    (models / "m.gguf").write_bytes(content)
    of_model = f'model_path = "{models / "m.gguf"}"'
    with (
        cluster(tmp_path, replicas=1, of_model=of_model, listen="0.0.0.0") as running,
        space(running, "a", hidden=[models]) as one,
    ):
        running.wait_ready("a")
        (copy,) = one.models_dir("a").glob("copies/*/m.gguf")
        assert copy.read_bytes() == content
        one.host("a").end()
        wait_for(lambda: not running.ready(), why="the machine is lost")
        one.come_back("a")
        running.wait_ready("a")  # the only machine: it is not shunned, and has its copy
        assert one.host("a").output.count("copying m.gguf") == 1
