"""The roster with what feeds it: learnt and reckoned needs, the folder of models, changed files."""

from collections.abc import Callable
from pathlib import Path

from gpufc.config import Config
from supervisor.devices.snapshot import Snapshot
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.names import served_name
from supervisor.roster.file_watch import FileWatch
from supervisor.roster.folder_watch import FolderWatch
from supervisor.roster.learnt import Learnt
from supervisor.roster.machine import Machine
from supervisor.roster.needs import Needs
from supervisor.roster.port import DemandPort
from supervisor.roster.reckoner import Reckoner
from supervisor.roster.roster import Roster
from supervisor.roster.shown import ShownModels


class Assembly:
    """One for a front. Owns the wiring of its parts, their start and their end."""

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        demand: DemandPort,
        runtime: Path,
        snapshot: Callable[[], Snapshot] | None,
    ) -> None:
        """`runtime` is the runtime folder; `snapshot` gives the devices, where they are watched."""
        self._learnt = Learnt(runtime)
        needs = Needs(self._learnt.measured, config.fleet.device_memory_limit_bytes)
        machine = Machine(snapshot, spare_bytes=lambda: fleet.kept_kv_bytes)
        self.roster = Roster(fleet, demand, config, needs, machine, learnt=self._learnt.changed)
        self.models = ShownModels(self.roster, fleet, demand, needs)
        self._folder = _folder_watch(config, fleet, self.roster)
        self._files = FileWatch(self.models.failed, self.roster.renew)
        self._reckoner = Reckoner(
            fleet,
            needs,
            machine,
            config.admission.max_concurrent_requests,
            config.fleet,
            self.roster.register,
        )

    def start(self) -> None:
        """The fleet has been started."""
        self.roster.start()
        if self._folder is not None:
            self._folder.start()
        self._reckoner.start()
        self._files.start()

    async def stop(self) -> None:
        """Returns when all tasks and processes have ended, and what was learnt is written. The
        fleet's workers stay."""
        if self._folder is not None:
            await self._folder.stop()
        await self._files.stop()
        await self._reckoner.stop()
        await self.roster.stop()
        await self._learnt.close()


def _folder_watch(config: Config, fleet: Fleet, roster: Roster) -> FolderWatch | None:
    """What serves the files of `models_dir`; None without that folder."""
    folder = config.fleet.models_dir
    if folder is None:
        return None
    configured = {served_name(model) for model in config.models.values()}
    return FolderWatch(Path(folder), config.of_folder, fleet, roster, configured)
