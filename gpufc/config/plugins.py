"""The plugins that the front runs."""

from enum import StrEnum
from pathlib import PurePath
from typing import Annotated, Any

from msgspec import Meta, Struct, structs

from gpufc.config.marks import UPGRADE


class OnError(StrEnum):
    """What a plugin's failure means: the request fails, or goes on without that call."""

    FAIL = "fail"
    GO_ON = "go-on"


class PluginConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One plugin. `use` is an entry point's name, a module, `MODULE:CLASS`, or a Python file."""

    use: Annotated[str, Meta(min_length=1, max_length=1024)]
    on_error: OnError = OnError.FAIL
    timeout_s: Annotated[float, Meta(gt=0.0, le=600.0)] = 1.0
    options: dict[str, Any] = {}

    def hiding(self, shown: str) -> "PluginConfig":
        """It with `shown` in place of its options' values, which may be secrets."""
        return structs.replace(self, options=dict.fromkeys(self.options, shown))

    @property
    def shown(self) -> str:
        """A short name for displays and file names."""
        place, _, attribute = self.use.partition(":")
        stem = PurePath(place).stem if place.endswith(".py") else place
        return "-".join(filter(None, (stem, attribute)))


class PluginsConfig(Struct, frozen=True, kw_only=True):
    """The front's plugins. Without any, nothing of the plugin system is loaded."""

    plugins: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=1024)] | PluginConfig, ...],
        Meta(
            max_length=32,
            description="plugins in their order: names, or tables such as"
            ' `{ use = "my_plugin.py", on_error = "go-on", timeout_s = 0.5, options = {} }`',
            extra=UPGRADE,
        ),
    ] = ()

    def all(self) -> tuple[PluginConfig, ...]:
        """Each plugin, with defaults for those that are named only."""
        return tuple(PluginConfig(use=one) if isinstance(one, str) else one for one in self.plugins)
