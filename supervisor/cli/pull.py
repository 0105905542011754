"""`pull`: downloads a model into the folder of models."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisor.cli.options import config_option, resolve, setting_options

if TYPE_CHECKING:
    from supervisor.downloads.transfer import Moved
    from supervisor.downloads.wanted import WantedFile

TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 - a variable's name

_PART = re.compile(r"-\d{5}-of-\d{5}$")


@click.command("pull", short_help="Download a model from a hub or a URL.")
@click.argument("model")
@click.option(
    "--sha256", metavar="HEX", help="checksum that the file must have [default: the hub's]"
)
@click.option("--as", "name", metavar="NAME.gguf", help="name of the file here [default: the same]")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="file of mode 600 with the server's token [default: for the hub, the variable"
    f" {TOKEN_VARIABLE}]",
)
@config_option
@setting_options(["models_dir", "hub", "offline"])
def command(
    model: str,
    sha256: str | None,
    name: str | None,
    token_file: Path | None,
    config_file: str | None,
    **flags: str | None,
) -> None:
    """Download MODEL: OWNER/REPO of the hub, with `:FILE` or `:Q4_K_M` behind it, or a URL.

    A download that was cut goes on where it ended. The file gets its name when it is whole and has
    the checksum that the hub names. `start --model-path NAME` then serves it.
    """
    import asyncio

    from gpufc.errors import ConfigError
    from supervisor.cli.terminal import Progress, amount
    from supervisor.downloads.pull import files_of, private_token, pull
    from supervisor.downloads.transfer import session
    from supervisor.downloads.wanted import is_of_hub

    config = resolve(flags, config_file).config
    if config.server.offline:
        raise ConfigError("offline is set: nothing is downloaded")
    token = private_token(token_file) if token_file else None
    if token is None and is_of_hub(model, config.downloads.hub):
        token = os.environ.get(TOKEN_VARIABLE)
    shown: dict[str, Progress] = {}

    def told(file: "WantedFile", moved: "Moved") -> None:
        progress = shown.setdefault(file.name, Progress(file.name))
        if moved.total:
            progress.fraction(moved.done / moved.total)
        else:
            progress.note(f"{amount(moved.done)}, {amount(round(moved.bytes_per_s))}/s")

    async def work() -> tuple[list[Path], bool]:
        async with session(token) as http:
            files = await files_of(http, model, config.downloads.hub, sha256, name)
            for file in files:
                if file.sha256 is None:
                    click.echo(f"{file.name}: no checksum is known (--sha256 names one)", err=True)
            paths = await pull(http, files, config.downloads_folder, told)
            return paths, all(file.sha256 is not None for file in files)

    try:
        paths, is_vouched_for = asyncio.run(work())
    except KeyboardInterrupt:
        click.echo("The same command goes on from here.", err=True)
        raise
    finally:
        for progress in shown.values():
            progress.end()
    for path in paths:
        click.echo(f"{path} ({amount(path.stat().st_size)})")
    is_one_part = len(paths) == 1 and _PART.search(paths[0].stem)  # the others are to come
    if not is_vouched_for and not is_one_part:
        _require_model(paths[0])


def _require_model(path: Path) -> None:
    """Look into a model that no checksum vouches for: its server may have sent a part of it, or
    something else. Raises `DownloadFailed`."""
    from gpufc.errors import ConfigError
    from supervisor.cli.model_file import check
    from supervisor.cli.model_folder import probed
    from supervisor.downloads.part_file import DownloadFailed
    from supervisor.program import command

    try:
        probed(check(str(path), "pulled"), n_ctx=1)
    except ConfigError as err:
        raise DownloadFailed(f"{err}; `{command(f'models rm {path.stem}')}` deletes it") from err
