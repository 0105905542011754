"""Spells commands in hints, such that they can be pasted in the reader's folder and environment.

`RuntimeDir.command` adds the runtime folder.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

NAME = "gpufc-supervisor"
MODULE = "supervisor.cli"


def command(words: str = "", runtime_dir: Path | None = None) -> str:
    """The program with `words` and, if one is given, `--runtime-dir`."""
    folder = f"--runtime-dir {shlex.quote(str(runtime_dir))}" if runtime_dir else ""
    return " ".join(filter(None, (spelling(), words, folder)))


def spelling() -> str:
    """`gpufc-supervisor` if the caller's PATH finds this installation under that name, else its
    path."""
    path = callers_path(os.environ)
    script = _script()
    if script is None:
        return f"{python(path)} -m {MODULE}"
    found = shutil.which(NAME, path=path)
    if found and os.path.samefile(found, script):
        return NAME
    return shlex.quote(_from_here(script))


def absolute() -> str:
    """The program as a service manager calls it: without the caller's PATH."""
    script = _script()
    return f"{sys.executable} -m {MODULE}" if script is None else str(script)


def python(path: str | None = None) -> str:
    """This interpreter: its short name if `path` finds it under that name, else its path."""
    for name in ("python", "python3"):
        found = shutil.which(name, path=path)
        # not `samefile`: the interpreters of all environments link to one
        if found and os.path.abspath(found) == os.path.abspath(sys.executable):
            return name
    return shlex.quote(sys.executable)


def pip(words: str) -> str:
    """A command of this interpreter's pip."""
    path = callers_path(os.environ)
    found = shutil.which("pip", path=path)
    if found and os.path.dirname(os.path.abspath(found)) == os.path.dirname(sys.executable):
        return f"pip {words}"
    return f"{python(path)} -m pip {words}"


def callers_path(environ: "os._Environ[str] | dict[str, str]") -> str:
    """The caller's PATH, without the environment that `scripts/env` has put first for this process.

    An environment's own activation script sets VIRTUAL_ENV_PROMPT and `scripts/env` does not. If
    this guess is wrong, a hint is longer than needed and still right.
    """
    path, active = environ.get("PATH", os.defpath), environ.get("VIRTUAL_ENV")
    if active and "VIRTUAL_ENV_PROMPT" not in environ:
        path = path.removeprefix(os.path.join(active, "bin") + os.pathsep)
    return path


def _script() -> Path | None:
    """The running console script, or the one next to this interpreter; None without any."""
    started = Path(sys.argv[0])
    for script in (started, Path(sys.executable).with_name(NAME)):
        if script.name == NAME and os.access(script, os.X_OK):
            return script.absolute()
    return None


def _from_here(script: Path) -> str:
    """A path relative to the current folder if it lies there, else absolute.

    In the root folder it is absolute: a service runs there, and its reader elsewhere.
    """
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return str(script)
    is_near = script.is_relative_to(here) and here != Path(here.anchor)
    return str(script.relative_to(here)) if is_near else str(script)
