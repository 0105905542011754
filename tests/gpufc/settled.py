"""Settings from what a test gives."""

from pathlib import Path

from gpufc import settings
from gpufc.config import (
    ModelConfig,
)


def resolve(
    flags: dict[str, object] | None = None,
    environ: dict[str, str] | None = None,
    file: Path | None = None,
) -> settings.Settings:
    return settings.resolve(flags=flags or {}, environ=environ or {}, file=file)


def only(found: settings.Settings) -> ModelConfig:
    (model,) = found.config.models.values()
    return model
