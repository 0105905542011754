"""Models from elsewhere: their folder here, and the hub that they come from."""

import os
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from gpufc.config.marks import FLAG, PATH


class DownloadsConfig(Struct, frozen=True, kw_only=True):
    """Where `pull` gets models, and where it puts them."""

    models_dir: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="folder of downloaded models"
            " [default: $XDG_DATA_HOME/gpufc/models, else ~/.local/share/gpufc/models]",
            extra=FLAG | PATH,
        ),
    ] = None
    hub: Annotated[
        str,
        Meta(
            pattern=r"^https?://[^\s/]+",
            description="address of the hub that `pull` asks, such as that of a mirror",
            extra=FLAG,
        ),
    ] = "https://huggingface.co"

    @property
    def folder(self) -> Path:
        """`models_dir`, or its default."""
        if self.models_dir is not None:
            return Path(self.models_dir).expanduser().absolute()
        data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        return Path(data).expanduser() / "gpufc" / "models"
