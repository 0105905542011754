"""What can be configured: one frozen struct, and one module, for each part of the service.

A key has one name everywhere: `n_ctx` here, `n_ctx` in the TOML file, `GPUFC_N_CTX` in the
environment and, where `flag` is set, `--n-ctx` on the command line. Keys are unique over all
sections, so the TOML file needs tables for models only; `[fabric]` may hold the network's keys. A
class gets the section that it needs, never the whole `Config`. Only the fleet and the checks before
a start read a model's section.

Type, bounds and description stand in the annotation. `--help`, `config show`, CONFIGURATION.md and
the checks are made from it. `gpufc/settings/` finds the values. A `secret` value is never shown.
"""

from pathlib import Path

import msgspec
from msgspec import Struct

from gpufc.config.access import AccessConfig
from gpufc.config.admission import AdmissionConfig, Routing
from gpufc.config.cells import CellsConfig
from gpufc.config.cluster import ClusterConfig
from gpufc.config.downloads import DownloadsConfig, default_folder
from gpufc.config.fabric import FabricConfig, NetworkShare
from gpufc.config.fleet import FleetConfig, Standby
from gpufc.config.limits import LimitsConfig
from gpufc.config.model import (
    BackendKind,
    Confinement,
    FlashAttention,
    KvType,
    KvUnified,
    ModelConfig,
    Replay,
    Speculation,
    SplitMode,
    Spread,
)
from gpufc.config.plugins import OnError, PluginConfig, PluginsConfig
from gpufc.config.server import LogLevel, ServerConfig

__all__ = [
    "DEFAULT_MODEL",
    "AccessConfig",
    "AdmissionConfig",
    "BackendKind",
    "CellsConfig",
    "ClusterConfig",
    "Config",
    "Confinement",
    "DownloadsConfig",
    "FabricConfig",
    "FlashAttention",
    "FleetConfig",
    "KvType",
    "KvUnified",
    "LimitsConfig",
    "LogLevel",
    "ModelConfig",
    "NetworkShare",
    "OnError",
    "PluginConfig",
    "PluginsConfig",
    "Replay",
    "Routing",
    "ServerConfig",
    "Speculation",
    "SplitMode",
    "Spread",
    "Standby",
]

DEFAULT_MODEL = "default"
"""The name in `Config.models` of a model that no table of the file names."""


class Config(Struct, frozen=True, kw_only=True):
    """The whole configuration in force. `settings.resolve` makes it.

    `models` has at least one entry, in the order of the file, unless `fleet.models_dir` is set. Its
    keys are the names of the file's tables, not the names that models are served under. `of_folder`
    is the section of each model of `models_dir`, but for its file and name.
    """

    server: ServerConfig = ServerConfig()
    access: AccessConfig = AccessConfig()
    models: dict[str, ModelConfig] = msgspec.field(
        default_factory=lambda: {DEFAULT_MODEL: ModelConfig()}
    )
    of_folder: ModelConfig = ModelConfig()
    fleet: FleetConfig = FleetConfig()
    admission: AdmissionConfig = AdmissionConfig()
    limits: LimitsConfig = LimitsConfig()
    fabric: FabricConfig = FabricConfig()
    plugins: PluginsConfig = PluginsConfig()
    downloads: DownloadsConfig = DownloadsConfig()
    cluster: ClusterConfig = ClusterConfig()
    cells: CellsConfig = CellsConfig()

    def is_preloaded(self, name: str) -> bool:
        """Whether a model of `models` is loaded at the start: as configured, else the only one."""
        model = self.models[name]
        wanted = len(self.models) == 1 if model.preload is None else model.preload
        return wanted or model.pinned

    def model_folders(self) -> list[str]:
        """Folders from which models may be loaded over HTTP.

        By default the folders of the models at start, but never the root folder: a container may
        have its model there.
        """
        if self.server.model_dirs is not None:
            return [folder for folder in self.server.model_dirs.split(":") if folder]
        paths = [Path(model.model_path) for model in self.models.values() if model.model_path]
        return list(dict.fromkeys(str(path.parent) for path in paths if path.parents[1:]))

    @property
    def downloads_folder(self) -> Path:
        """Where downloaded models are: in `models_dir`, which serves them, or in the user's own."""
        given = self.fleet.models_dir
        return default_folder() if given is None else Path(given).absolute()
