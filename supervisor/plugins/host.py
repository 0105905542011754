"""The process of one plugin: `python -m supervisor.plugins.host --fd N --use NAME`.

It reads the plugin's options as JSON, loads the plugin, and answers the front's calls one after
another. It ends with the front. What the plugin prints goes to its log.
"""

import argparse
import importlib
import importlib.util
import inspect
import io
import itertools
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import msgspec
import pluggy

from gpufc import prctl
from gpufc.framing import frame, read_frame
from supervisor.plugins import api
from supervisor.plugins.messages import (
    MOST_BYTES,
    Call,
    FromPlugin,
    Raised,
    Ready,
    Refused,
    Returned,
    Unloadable,
    decode_call,
    encode,
)

GROUP = "gpufc.plugins"
"""The entry point group of installed plugins."""

MOST_ERROR_CHARS = 2000

_NOT_OF_PLUGINS = (__file__, str(Path(pluggy.__file__).parent))
"""The code between a call and the plugin's hook."""


def main() -> None:
    """Serve the front until it closes the socket."""
    parser = argparse.ArgumentParser(prog="supervisor.plugins.host", description=__doc__)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--use", required=True)
    parser.add_argument("--offline", action="store_true")
    given = parser.parse_args()
    prctl.end_with_parent()
    prctl.gain_no_privileges()
    if os.getppid() != given.parent:
        return
    if given.offline:
        from supervisor import offline

        offline.forbid_here()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # the end is a kill: what is buffered is lost
    sock = socket.socket(fileno=given.fd)
    options = read_frame(sock.recv, MOST_BYTES)
    if options is not None:
        serve(sock, lambda: load(given.use, json.loads(options)))


def serve(sock: socket.socket, make: Callable[[], object]) -> None:
    """Answer calls over the connected socket."""

    def send(message: FromPlugin) -> None:
        sock.sendall(frame(encode(message)))

    manager = pluggy.PluginManager(api.PROJECT)
    manager.add_hookspecs(api.Hooks)
    try:
        plugin = make()
        manager.register(plugin)
        manager.check_pending()
        callers = manager.get_hookcallers(plugin) or []
        hooks = tuple(caller.name for caller in callers)
        if not hooks:
            raise TypeError(f"it has no hook; mark one of {', '.join(api.NAMES)} with @hook")
    except BaseException as err:
        send(Unloadable(f"{type(err).__name__}: {err}"[:MOST_ERROR_CHARS]))
        return
    send(Ready(hooks))
    while (data := read_frame(sock.recv, MOST_BYTES)) is not None:
        send(answer(manager, decode_call(data)))


def answer(manager: pluggy.PluginManager, call: Call) -> FromPlugin:
    """Run a hook."""
    try:
        arguments = typed(call.hook, call.arguments)
        caller = getattr(manager.hook, call.hook)
        value = caller(**arguments)
        has_result = caller.spec is not None and caller.spec.opts["firstresult"]
        return Returned(call.no, msgspec.to_builtins(value) if has_result else None)
    except api.Refuse as refusal:
        return Refused(call.no, str(refusal)[:MOST_ERROR_CHARS])
    except Exception as err:  # the boundary of the plugin's code
        places = f"{_frames_of(err)[-MOST_ERROR_CHARS:]}{type(err).__qualname__}"
        return Raised(call.no, places, _text_of(err)[:MOST_ERROR_CHARS])


def _frames_of(error: Exception) -> str:
    """Where the exception was raised, from the plugin's own code on."""
    frames = traceback.extract_tb(error.__traceback__)
    begun = itertools.dropwhile(lambda frame: frame.filename.startswith(_NOT_OF_PLUGINS), frames)
    return "".join(traceback.format_list(list(begun) or frames))


def _text_of(error: Exception) -> str:
    """An exception's own text, which is the plugin's code as well."""
    try:
        return str(error)
    except Exception:  # the boundary of the plugin's code
        return "(it has no text)"


def typed(hook: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Plain data as the structs that the hook takes."""
    hints = get_type_hints(getattr(api.Hooks, hook))
    return {name: msgspec.convert(value, hints[name]) for name, value in arguments.items()}


def load(use: str, options: dict[str, Any]) -> object:
    """The plugin of a name: an entry point, a file, a module, or `MODULE:CLASS`. Modules beside
    the file are found, too.

    A class is made with the options. A module with a class `Plugin` means that one. Raises whatever
    the plugin's code raises.
    """
    found = _find(use)
    if isinstance(found, ModuleType):
        found = getattr(found, "Plugin", found)
    if inspect.isclass(found):
        return found(**options)
    if options:
        raise TypeError("it takes no options: it is no class")
    return found


def _find(use: str) -> object:
    place, _, attribute = use.partition(":")
    if place.endswith(".py"):
        path = Path(place).expanduser().absolute()
        sys.path += [str(path.parent), os.getcwd()]
        module = _of_file(path)
    elif named := entry_points(group=GROUP, name=use):
        return next(iter(named)).load()
    else:
        sys.path.append(os.getcwd())  # last: no file there stands for a library
        module = importlib.import_module(place)
    return getattr(module, attribute) if attribute else module


def _of_file(path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(path.stem, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[path.stem] = module
    found.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
