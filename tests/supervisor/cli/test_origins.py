"""A reload looks at the file that the settings in force were read from, as it was then."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gpufc.ids import Epoch
from gpufc.protocol import PROTOCOL_VERSION
from gpufc.settings import Stamp, stamp_of
from supervisor.cli import cli, foreground, take_over
from supervisor.cli.origins import origins
from supervisor.fleet.inheritance import Holdings
from supervisor.handover import messages
from supervisor.reload import Origins

STAMP: Stamp = (1, 2, 3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gpufc.toml"
    path.write_text("backend = 'fake'\nmax_n = 2")
    return path


@pytest.mark.parametrize("way", ["flag", "variable"])
def test_the_stamp_is_that_of_the_settings(
    file: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "variable":
        monkeypatch.setenv("GPUFC_CONFIG", str(file))
    found = origins({}, str(file) if way == "flag" else None, STAMP)
    assert (found.file, found.stamp) == (file, STAMP)
    assert found.read().config.limits.max_n == 2


def test_without_a_file_there_is_none_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUFC_CONFIG", raising=False)
    found = origins({}, None, None)
    assert (found.file, found.stamp) == (None, None)


def test_a_start_hands_on_the_stamp_of_what_it_has_read(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Origins] = []

    def serve(_config: Any, _values: Any, origins: Origins) -> None:
        served.append(origins)

    monkeypatch.setattr(foreground, "serve", serve)
    folder = str(tmp_path / "run")
    words = ("--config", str(file), "--port", "0", "--runtime-dir", folder)
    result = CliRunner().invoke(cli, ["start", *words])
    assert result.exit_code == 0, result.output
    (found,) = served
    assert (found.file, found.stamp) == (file, stamp_of(file))


def test_a_front_that_takes_over_looks_at_the_file_of_the_front_before(file: Path) -> None:
    estate = messages.Estate(
        version=messages.VERSION,
        protocol=PROTOCOL_VERSION,
        pid=1,
        runtime_dir="/r",
        origins=messages.Origins(flags={"max_queue": 3}, file=str(file), models={}),
        started_at=0.0,
        n_listeners=0,
        fleet=Holdings(workers=(), models={}, next_epoch=Epoch(1), restarts={}),
        relayed={},
        watched=frozenset(),
    )
    found = take_over._origins(estate, STAMP)
    assert (found.file, found.stamp) == (file, STAMP)
    config = found.read().config
    assert (config.limits.max_n, config.admission.max_queue) == (2, 3)
