"""Where a front's configuration comes from, to be read again by a reload."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gpufc.settings import Settings, Stamp
from supervisor.cli import preflight
from supervisor.cli.options import CONFIG_VARIABLE, resolve
from supervisor.reload import Origins


def origins(flags: Mapping[str, Any], config_file: str | None, stamp: Stamp | None) -> Origins:
    """The flags of this command line, its file, and this process's variables. `stamp` is that of
    the file which was read."""
    given = config_file or os.environ.get(CONFIG_VARIABLE)
    file = Path(given).expanduser().absolute() if given else None

    def read() -> Settings:
        return checked(resolve(flags, config_file))

    return Origins(read=read, file=file, stamp=stamp)


def checked(settings: Settings) -> Settings:
    """The settings with absolute paths of the models' files. Raises `ConfigError`."""
    config = preflight.check_configuration(settings).config
    return msgspec.structs.replace(settings, config=config)
