"""`report`: one archive for a bug report, without prompts, answers and secrets."""

import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from supervisor.cli.options import config_option, resolve, setting_options
from supervisor.cli.options import runtime_dir as find

if TYPE_CHECKING:
    from supervisor.runtime_dir import RuntimeDir

MOST_LOG_BYTES = 2 << 20
"""Of each log, its end."""

PLUGIN_LOGS = "plugin-"
"""Logs of what an operator's own code prints, which may be prompts. They stay here."""

README = """\
A report of gpufc, made by `gpufc-supervisor report` at {at}.

Read it before you give it away: it is all plain text. It has
  versions.json   versions of gpufc, its libraries, Python and the system; the processor
  config.toml     the configuration in force and where each value comes from; secrets are hidden
  doctor.txt      what `gpufc-supervisor doctor` says
  status.json     the figures of /stats: front, workers, requests, devices, alarms
  metrics.txt     the figures of /metrics
  history.json    the machine over the last hour
  crashes/        why engine workers ended unasked
  logs/           the end of the logs of the front and of its workers

It has no prompts, no answers, no keys and no addresses of clients. It has names of models and
files, paths, and the names of access keys.

{missing}"""

Part = tuple[str, Callable[[], str]]
"""A file of the archive, and what makes its text."""


@click.command("report", short_help="Write an archive for a bug report.")
@click.option("--output", "-o", metavar="FILE", help="archive to write [default: in this folder]")
@config_option
@setting_options(["runtime_dir"])
def command(output: str | None, config_file: str | None, runtime_dir: str | None) -> None:
    """Write an archive for a bug report: versions, configuration, logs, crashes, figures.

    It has no prompts, answers, keys or addresses of clients; its README.txt says what it has. Works
    without a running front, too, with less in it.
    """
    from gpufc.errors import StartError

    folder = find(runtime_dir)
    at = time.strftime("%Y-%m-%dT%H-%M-%S")
    path = Path(output or f"gpufc-report-{at}.zip").expanduser()
    try:
        n_files, missing = write(path, folder, config_file, at)
    except OSError as err:
        raise StartError(f"{path} cannot be written: {err.strerror or err}") from err
    for line in missing:
        click.echo(f"left out: {line}", err=True)
    size = path.stat().st_size
    click.echo(f"wrote {path}: {n_files} files, {size / 1024:.0f} KiB; read it before you send it")


def write(
    path: Path, folder: "RuntimeDir", config_file: str | None, at: str
) -> tuple[int, list[str]]:
    """Write the archive, readable by its owner only. Returns the number of files, and what is
    missing and why. Raises `OSError`."""
    missing: list[str] = []
    n_files = 1
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    os.fchmod(fd, 0o600)  # it may have been there before
    with (
        os.fdopen(fd, "wb") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, make in _parts(folder, config_file):
            try:
                text = make()
            except Exception as err:  # a report of a broken service must not break with it
                missing.append(f"{name}: {err or type(err).__name__}")
                continue
            archive.writestr(name, text)
            n_files += 1
        said = "\n".join(["Left out:", *(f"  {one}" for one in missing)]) if missing else ""
        archive.writestr("README.txt", README.format(at=at, missing=said))
    return n_files, missing


def _parts(folder: "RuntimeDir", config_file: str | None) -> Iterator[Part]:
    from supervisor.cli.report_texts import clean, crash
    from supervisor.control.client import ControlClient

    client = ControlClient(folder.control_socket)
    yield "versions.json", _versions
    yield "config.toml", lambda: _configuration(client, folder, config_file)
    yield "doctor.txt", lambda: _doctor(folder, config_file)
    yield "status.json", lambda: clean(json.dumps(client.status(), indent=2))
    yield "metrics.txt", lambda: client.text("/metrics")
    yield "history.json", lambda: client.text("/history")
    for log in sorted(folder.logs.glob("*")) if folder.logs.is_dir() else ():
        if log.is_file() and not log.is_symlink() and not log.name.startswith(PLUGIN_LOGS):
            yield f"logs/{log.name}", lambda log=log: clean(_end_of(log))  # type: ignore[misc]
    for record in sorted((folder.path / "crashes").glob("*.json")):
        yield f"crashes/{record.name}", lambda record=record: crash(record.read_text())  # type: ignore[misc]


def _versions() -> str:
    from supervisor.cli.report_texts import versions

    return json.dumps(versions(), indent=2)


def _configuration(client: Any, folder: "RuntimeDir", config_file: str | None) -> str:
    """Of the running front, else what `start` would have."""
    from gpufc.settings import row
    from supervisor.cli.config import toml_lines
    from supervisor.control.client import NotRunning

    try:
        rows, whose = client.config(), "of the running front"
    except NotRunning:
        settings = resolve({"runtime_dir": str(folder.path)}, config_file)
        rows, whose = [row(value) for value in settings.values], "that `start` would have"
    return "\n".join([f"# the configuration {whose}", *toml_lines(rows)])


def _doctor(folder: "RuntimeDir", config_file: str | None) -> str:
    from supervisor.cli.doctor import examine

    settings = resolve({"runtime_dir": str(folder.path)}, config_file)
    found = examine(settings)
    return "".join(
        f"{one.level:5} {one.subject}: {one.text} {one.advice}".rstrip() + "\n" for one in found
    )


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - MOST_LOG_BYTES))
        return file.read().decode("utf-8", "replace")
