"""How a command is spelled in a hint: such that whoever reads it can paste it where they are.

The one place that knows. `RuntimeDir.command` adds the folder that a hint means.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

NAME = "gpufc-supervisor"
MODULE = "supervisor.cli"


def command(words: str = "", runtime_dir: Path | None = None) -> str:
    """The program with `words` behind it, and `--runtime-dir` if one is given."""
    folder = f"--runtime-dir {shlex.quote(str(runtime_dir))}" if runtime_dir else ""
    return " ".join(filter(None, (spelling(), words, folder)))


def spelling() -> str:
    """`gpufc-supervisor` where the caller's PATH finds this very one, else its path."""
    path = callers_path(os.environ)
    script = _script()
    if script is None:
        return f"{python(path)} -m {MODULE}"
    found = shutil.which(NAME, path=path)
    if found and os.path.samefile(found, script):
        return NAME
    return shlex.quote(_from_here(script))


def python(path: str | None = None) -> str:
    """The interpreter that runs this, as its short name where `path` finds it under that."""
    for name in ("python", "python3"):
        found = shutil.which(name, path=path)
        # not `samefile`: the interpreters of all environments link to one
        if found and os.path.abspath(found) == os.path.abspath(sys.executable):
            return name
    return shlex.quote(sys.executable)


def pip(words: str) -> str:
    """A command of the pip that installs for the interpreter that runs this."""
    path = callers_path(os.environ)
    found = shutil.which("pip", path=path)
    if found and os.path.dirname(os.path.abspath(found)) == os.path.dirname(sys.executable):
        return f"pip {words}"
    return f"{python(path)} -m pip {words}"


def callers_path(environ: "os._Environ[str] | dict[str, str]") -> str:
    """The PATH without the environment that `scripts/env` put first in it for us alone.

    Who activates an environment by its own script has VIRTUAL_ENV_PROMPT as well; `scripts/env`
    sets none. Should that be wrong, a hint is longer than it must be, and still right.
    """
    path, active = environ.get("PATH", os.defpath), environ.get("VIRTUAL_ENV")
    if active and "VIRTUAL_ENV_PROMPT" not in environ:
        path = path.removeprefix(os.path.join(active, "bin") + os.pathsep)
    return path


def _script() -> Path | None:
    """The console script that runs, or the one beside our interpreter; None without any."""
    started = Path(sys.argv[0])
    for script in (started, Path(sys.executable).with_name(NAME)):
        if script.name == NAME and os.access(script, os.X_OK):
            return script.absolute()
    return None


def _from_here(script: Path) -> str:
    """Relative to the current folder if it lies in it."""
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return str(script)
    return str(script.relative_to(here)) if script.is_relative_to(here) else str(script)
