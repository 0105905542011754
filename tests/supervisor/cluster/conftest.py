"""A listener for the tests of this folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.supervisor.cluster.listener_bench import Bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()
