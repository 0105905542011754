"""Models that are to be spread over machines."""

from pathlib import Path

import pytest

from gpufc import settings
from gpufc.errors import ConfigError
from supervisor.cli.preflight import check_spread

MACHINES = 'spread = "machines"\n'
FOLDER = 'models_dir = "/models"\n'
LISTEN = 'cluster_listen = "0.0.0.0:7000"\n'


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"[models.a]\n{MACHINES}", "[models.a]"),
        (f'{FOLDER}[model]\n{MACHINES}[models.a]\nspread = "front"\n', "[model]"),
    ],
)
def test_without_machines_that_may_join_it_is_refused(
    tmp_path: Path, text: str, place: str
) -> None:
    file = tmp_path / "gpufc.toml"
    for before in (LISTEN, ""):
        file.write_text(before + text)
        config = settings.resolve(flags={}, environ={}, file=file).config
        if before:
            check_spread(config)
            continue
        with pytest.raises(ConfigError) as refusal:
            check_spread(config)
        assert str(refusal.value).startswith(f"{place} has spread = machines")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("local_replicas = 2", "changes nothing without spread = machines"),
        (f"{MACHINES}replicas = 2\nlocal_replicas = 2", "none is left to other machines"),
        (f"{MACHINES}replicas = 3\nlocal_replicas = 2", ""),
        ("replicas = 2", ""),
    ],
)
def test_local_replicas_without_any_on_machines_are_told(
    tmp_path: Path, lines: str, words: str
) -> None:
    file = tmp_path / "gpufc.toml"
    file.write_text(f"{LISTEN}[models.a]\n{lines}\n")
    notes = check_spread(settings.resolve(flags={}, environ={}, file=file).config)
    assert len(notes) == bool(words)
    for note in notes:
        assert note.startswith("[models.a] has local_replicas = 2")
        assert words in note
