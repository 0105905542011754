"""Keeps a front's models the same as the files of a folder."""

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import msgspec

from gpufc.config import ModelConfig
from gpufc.errors import ConfigError
from supervisor.looks import repeat
from supervisor.roster.folder import Changes, Folder, Found, scan

logger = logging.getLogger(__name__)

LOOK_S = 2.0


class OpenFleet(Protocol):
    """The fleet, as models are added to it (`supervisor.fleet.fleet.Fleet`)."""

    def models(self) -> list[str]: ...
    def add(self, name: str, config: ModelConfig) -> object: ...


class Catalogue(Protocol):
    """The roster, as it hears of files (`supervisor.roster.roster.Roster`)."""

    def register(self, model: str) -> None: ...
    def renew(self, model: str) -> None: ...
    def forget(self, model: str) -> None: ...


class FolderWatch:
    """Adds, renews and forgets the models of one folder. In the event loop; looks in a thread."""

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        fleet: OpenFleet,
        roster: Catalogue,
        configured: Collection[str] = (),
    ) -> None:
        """`config` is the section of every model of the folder, but for its file and name. A file
        of a `configured` name is passed over: it is not that model's, or not only here."""
        self._folder = folder
        self._config = config
        self._configured = configured
        self._fleet = fleet
        self._roster = roster
        self._known = Folder()
        self._told = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Serve what is there, before this returns; then look again and again. Blocks for the first
        look, which a start may."""
        self.look(is_first=True)
        work = repeat("models_dir", self._look, LOOK_S)
        self._task = asyncio.create_task(work, name="models_dir")

    def look(self, *, is_first: bool = False) -> None:
        """Compare the folder with what is served. Blocks while it looks."""
        self._take(self._scanned(), is_first=is_first)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        self._take(await asyncio.to_thread(self._scanned))

    def _scanned(self) -> dict[str, Found] | None:
        try:
            found = scan(self._folder)
        except OSError as err:
            if str(err) != self._told:  # once, not at each look
                logger.warning("models_dir_unreadable: %s", err)
            self._told = str(err)
            return None
        self._told = ""
        return {name: one for name, one in found.items() if name not in self._configured}

    def _take(self, found: dict[str, Found] | None, *, is_first: bool = False) -> None:
        if found is not None:  # what is served stays while the folder cannot be read
            self._apply(self._known.look(found, is_first=is_first))

    def _apply(self, changes: Changes) -> None:
        for name in changes.gone:
            logger.info("model_file_gone model=%s", name)
            self._roster.forget(name)
        for name in changes.changed:
            logger.info("model_file_changed model=%s", name)
            self._roster.renew(name)
        for name in changes.new:
            self._add(name)

    def _add(self, name: str) -> None:
        path = str(self._known.files[name].path)
        config = msgspec.structs.replace(self._config, model_path=path, model=name)
        try:
            if name not in self._fleet.models():  # else another front has handed it over
                self._fleet.add(name, config)
        except ConfigError as err:
            logger.warning("model_not_served: %s", err)
            del self._known.files[name]  # perhaps later: the model before may still be leaving
            return
        logger.info("model_file_found model=%s", name)
        self._roster.register(name)
