"""Turns exceptions into one line on stderr and an exit code.

Exit codes: 0 fine, 2 bad usage or configuration, 3 could not start, 4 not running, 5 refused.
"""

import errno
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from gpufc.errors import ConfigError, GpufcError, StartError

USAGE = 2
COULD_NOT_START = 3
NOT_RUNNING = 4
REFUSED = 5
INTERRUPTED = 130


def reported(command: Callable[[], Any], args: Sequence[str]) -> int:
    """Run a command. Prints its error as one line and returns the exit code."""
    try:
        result = command()
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as err:
        err.show()
        return USAGE
    except click.UsageError as err:
        return _say(_usage(err), USAGE)
    except click.ClickException as err:
        return _say(err.format_message(), USAGE)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except GpufcError as err:
        if _debugging(args):
            raise
        return _say(str(err), exit_code(err))
    except OSError as err:
        if err.errno == errno.EPIPE:
            return _reader_left()
        if _debugging(args):
            raise
        return _say(f"{err.strerror or err}{f': {err.filename}' if err.filename else ''}", 1)
    except Exception as err:  # a defect of gpufc: one line, with the way to more
        if _debugging(args):
            raise
        hint = "run it again with GPUFC_LOG_LEVEL=debug for the traceback"
        return _say(f"unexpected {type(err).__name__}: {err}; {hint}", 1)


def exit_code(err: GpufcError) -> int:
    """The exit code for an operator's error."""
    from supervisor.control.client import NotRunning, Refused

    match err:
        case ConfigError():
            return USAGE
        case StartError():
            return COULD_NOT_START
        case NotRunning():
            return NOT_RUNNING
        case Refused():
            return REFUSED
        case _:
            return 1


def _usage(err: click.UsageError) -> str:
    """Click's message as one line in lower case that ends with where to look."""
    from supervisor import program

    if isinstance(err, click.NoSuchOption):
        close = _similar(err.option_name, err.possibilities or ())
        err = click.NoSuchOption(err.option_name, possibilities=close, ctx=err.ctx)
    message = " ".join(err.format_message().split())
    _, _, words = (err.ctx.command_path if err.ctx else "").partition(" ")
    where = program.command(f"{words} --help".strip())
    return f"{message[:1].lower()}{message[1:].rstrip('.')} (see `{where}`)"


def _similar(option: str, possibilities: Sequence[str]) -> list[str]:
    """The suggestion if it is really alike: click counts the dashes that all options share."""
    from gpufc.settings import closest

    bare = {name.lstrip("-"): name for name in possibilities}
    close = closest(option.lstrip("-"), bare)
    return [bare[close]] if close else []


def _say(message: str, code: int) -> int:
    line = " ".join(message.split())
    click.echo(f"{click.style('error:', fg='red', bold=True)} {line}", err=True)
    return code


def _reader_left() -> int:
    """Point stdout at /dev/null: after `| head`, the interpreter would report it once more at
    exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _debugging(args: Sequence[str]) -> bool:
    given = " ".join(args).replace("=", " ").split()
    flagged = any(pair == ("--log-level", "debug") for pair in itertools.pairwise(given))
    return flagged or os.environ.get("GPUFC_LOG_LEVEL", "").lower() == "debug"
