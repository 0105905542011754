"""Whether the configured plugins can be loaded: tried as `start` does it, and ended again."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from gpufc.config import Config
from supervisor.plugins.process import PluginProcess, started


async def tried(config: Config) -> list[tuple[PluginProcess, str]]:
    """Each plugin with its hooks, and why it cannot be loaded; empty where it can."""
    with TemporaryDirectory() as folder:
        offline = config.server.offline
        plugins = [PluginProcess(p, Path(folder), offline=offline) for p in config.plugins.all()]
        try:
            errors = await started(plugins)
        finally:
            await asyncio.gather(*(plugin.stop() for plugin in plugins))
    return [(one, str(error or "")) for one, error in zip(plugins, errors, strict=True)]
