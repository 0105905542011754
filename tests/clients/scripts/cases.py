"""Runs the named cases of a client's script and prints what each of them raised."""

import asyncio
import inspect
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

Case = Callable[[], Any]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    """A case of this name, which fails by raising."""

    def added(function: Case) -> Case:
        assert name not in CASES, name
        CASES[name] = function
        return function

    return added


def url() -> str:
    """The base address that the script was given, for OpenAI's API."""
    return f"{sys.argv[1]}/v1"


def raised(kind: type[Exception], function: Case) -> Any:
    """The error of exactly this type that the function raises."""
    try:
        function()
    except kind as err:
        if type(err) is kind:
            return err
        raise
    raise AssertionError(f"no {kind.__name__}")


def run(*packages: str) -> None:
    """Run the cases that the command line names, or all. The last line printed is the document."""
    wanted = sys.argv[2:] or list(CASES)
    failed = {}
    with asyncio.Runner() as loop:  # clients keep connections, which belong to one loop
        for name in wanted:
            began = time.time()
            failed[name] = _told(CASES[name], loop)
            print(json.dumps([name, began, time.time(), failed[name]]), file=sys.stderr)
    found = {"versions": {one: version(one) for one in packages}, "cases": failed}
    print(json.dumps(found))


def _told(function: Case, loop: asyncio.Runner) -> str:
    """The error of a case, or nothing."""
    try:
        made = function()
        if inspect.iscoroutine(made):
            loop.run(made)
    except Exception as err:
        return f"{type(err).__name__}: {err}"[:2000]
    return ""
