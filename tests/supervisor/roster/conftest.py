"""Rosters over a fake fleet."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gpufc.config import ModelConfig
from tests.supervisor.roster.rig import Rig

MakeRig = Callable[..., Rig]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[MakeRig]:
    made: list[Rig] = []

    def rig(*, fits: int | None = None, **models: ModelConfig) -> Rig:
        named = models or {"a": ModelConfig(), "b": ModelConfig()}
        made.append(Rig(tmp_path, fits=fits, **named))
        return made[-1]

    yield rig
    for one in made:
        await one.close()
