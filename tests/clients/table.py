"""Which client of which version did what: a table for a results file, made by the tests."""

import os
from collections.abc import Mapping
from pathlib import Path

from tests import machine, results


class Seen:
    """Rows of clients that did what their test asks for. A test that fails adds no row."""

    def __init__(self) -> None:
        self._conditions = machine.conditions()
        self._rows: list[tuple[str, str, str]] = []

    def add(self, versions: Mapping[str, str], did: str) -> None:
        """Called at the end of a test, once for all its packages."""
        for client, version in versions.items():
            self._rows.append((client, version, did))

    def write(self) -> None:
        target = os.environ.get("CLIENT_RESULTS")
        if not target or not self._rows:
            return
        command = f"CLIENT_RESULTS={Path(target).name} scripts/test --full tests/clients"
        run = results.Run(title="public clients", command=command, conditions=self._conditions)
        table = results.Table(("client", "version", "done"), sorted(self._rows))
        results.append(Path(target), run, table)
