"""Models from elsewhere: the hub that they come from, and the folder for them."""

import os
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from gpufc.config.marks import FLAG


class DownloadsConfig(Struct, frozen=True, kw_only=True):
    """Where `pull` gets models."""

    hub: Annotated[
        str,
        Meta(
            pattern=r"^https?://[^\s/]+",
            description="address of the hub that `pull` asks, such as that of a mirror",
            extra=FLAG,
        ),
    ] = "https://huggingface.co"


def default_folder() -> Path:
    """Where downloads go without a `models_dir`."""
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "gpufc" / "models"
