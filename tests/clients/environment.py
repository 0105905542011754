"""Environments of public clients: each has its own, apart from the tests' packages.

A client's packages would upgrade or plug into the ones that the tests run with. `uv` (of the extra
`clients`) makes the environments under the system's temporary folder and keeps its own cache, so
that a second run downloads nothing.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INSTALL_S = 280
RUN_S = 180


def python_with(folder: Path, *packages: str) -> Path:
    """A new environment's interpreter; `folder` does not exist yet."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert uv, "uv is not installed: it is in the extra `clients`"
    python = folder / "bin" / "python"
    with _whole_or_gone(folder):
        done(uv, "venv", "--quiet", "--python", sys.executable, str(folder), timeout_s=INSTALL_S)
        done(uv, "pip", "install", "--quiet", "--python", python, *packages, timeout_s=INSTALL_S)
    return python


def npm_with(folder: Path, *packages: str, scripts: bool = False) -> Path:
    """A folder whose scripts import these packages. `scripts` runs the packages' own installation
    steps, which programs need that come with binaries."""
    npm = shutil.which("npm")
    assert npm, "npm is not installed"
    options = ["--no-audit", "--no-fund", *([] if scripts else ["--ignore-scripts"])]
    with _whole_or_gone(folder):
        folder.mkdir()
        (folder / "package.json").write_text('{"private": true, "type": "module"}')
        done(npm, "install", *options, *packages, cwd=folder, timeout_s=INSTALL_S)
    return folder


@contextlib.contextmanager
def _whole_or_gone(folder: Path) -> Iterator[None]:
    """Remove a new environment if its installation fails: a kept one counts as complete."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def printed(*command: str | Path, **options: Any) -> Any:
    """The document in the last line that a client's script prints."""
    return json.loads(done(*command, **options).splitlines()[-1])


def done(
    *command: str | Path,
    cwd: Path | None = None,
    environ: dict[str, str] | None = None,
    given: str = "",
    timeout_s: float = RUN_S,
) -> str:
    """A command's standard output; `given` is its input. Fails with all that it printed."""
    ended = subprocess.run(
        command,
        cwd=cwd,
        env=_environment() | (environ or {}),
        input=given,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def _environment() -> dict[str, str]:
    """This process's environment without its own packages. LiteLLM's list of prices comes from
    its package instead of the network."""
    own = {"PYTHONPATH", "VIRTUAL_ENV"}
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in own and not key.startswith("GPUFC_")
    }
    return kept | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
