"""Where a front's configuration comes from, to be read again by a reload."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpufc.settings import Settings
from supervisor.cli import preflight
from supervisor.cli.options import CONFIG_VARIABLE, resolve
from supervisor.reload import Origins


def origins(flags: Mapping[str, Any], config_file: str | None) -> Origins:
    """The flags of this command line, its file, and this process's variables."""
    given = config_file or os.environ.get(CONFIG_VARIABLE)
    file = Path(given).expanduser().absolute() if given else None

    def read() -> Settings:
        return checked(resolve(flags, config_file))

    return Origins(read=read, file=file)


def checked(settings: Settings) -> Settings:
    """The settings with absolute paths of the models' files. Raises `ConfigError`."""
    return Settings(preflight.check_configuration(settings).config, settings.values)
