"""`version`: the versions of gpufc and of the libraries below it."""

import platform

import click

from gpufc import __version__

LIBRARIES = ("llama-cpp-python", "aiohttp", "uvloop", "pyzmq", "msgspec")


@click.command("version", short_help="Print versions: gpufc, Python, libraries.")
def command() -> None:
    """Print the version of gpufc, of Python and of the libraries that matter."""
    from importlib import metadata

    click.echo(f"gpufc {__version__}")
    click.echo(f"Python {platform.python_version()} ({platform.system()} {platform.machine()})")
    for name in LIBRARIES:
        try:
            click.echo(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            click.echo(f"{name} is not installed")
