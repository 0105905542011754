"""The demo model in one service, for all tests that leave it as they found it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.repeatable import SAME_PASSES
from tests.service import Service, service


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("demo") / "run"
    arguments = ("--model-path", str(model_path), "--n-ctx", "1024")
    with service(folder, *arguments, environ=SAME_PASSES) as started:
        yield started
