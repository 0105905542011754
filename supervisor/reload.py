"""Hot configuration: reads the configuration again and applies it as a whole, or not at all.

`gpufc/config/` marks what a key's new value needs. A key that needs a new worker gets one by a
replacement, as `swap` does it: the new worker is tried before the old one ends.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from gpufc.changes import Change, changes, refusal
from gpufc.config import Config
from gpufc.config.live import write
from gpufc.config.marks import Reload
from gpufc.errors import ConfigError, InvalidConfiguration, ReloadRefused, RequestError
from gpufc.settings import Settings, Stamp, Value, require_regular, stamp_of
from supervisor.fleet.port import OnReplacement, not_followed

logger = logging.getLogger(__name__)

LOOK_S = 2.0
"""A file that has changed is read when it has not changed for so long: editors write in parts."""


class Origins(Struct, frozen=True):
    """Where the configuration came from. `read` resolves and checks it again, with the same flags,
    and raises `ConfigError`; it may block. `file` is the TOML file, if there is one, and `stamp` is
    that of the version which was read first."""

    read: Callable[[], Settings]
    file: Path | None
    stamp: Stamp | None

    def read_again(self) -> Settings:
        """Raises `ConfigError` for a pipe as well: it would block for ever, and other reloads
        would wait for it."""
        if self.file is not None:
            require_regular(self.file)
        return self.read()


class ReloadingFleet(Protocol):
    """The fleet, as a reload needs it (`supervisor.fleet.fleet.Fleet`)."""

    def reconfigure(
        self,
        models: Mapping[str, Mapping[str, Any]],
        n_sequences: int,
        *,
        needs_workers: bool,
        tell: OnReplacement = not_followed,
    ) -> Coroutine[Any, Any, None]: ...


class Reloader:
    """The configuration in force. One reload at a time; in the event loop."""

    def __init__(
        self,
        config: Config,
        values: Sequence[Value],
        origins: Origins | None,
        fleet: ReloadingFleet,
        applied: Callable[[], None],
    ) -> None:
        """`config` is written to; `applied` is called after it has been. Without `origins` every
        reload is refused."""
        self.values = tuple(values)
        """Every value in force."""
        self._config = config
        self._origins = origins
        self._fleet = fleet
        self._applied = applied
        self._lock = asyncio.Lock()

    async def reload(
        self, *, is_trial: bool = False, tell: OnReplacement = not_followed
    ) -> tuple[Change, ...]:
        """Read everything again and apply it. Returns the changes; a trial applies none.

        Raises `InvalidConfiguration` or `ReloadRefused`, and a replacement's own error. After an
        error everything is as before.
        """
        async with self._lock:
            fresh = await self._read()
            found = changes(self.values, fresh.values)
            if reason := refusal(self.values, fresh.values):
                raise ReloadRefused(f"Nothing was changed: {reason}")
            if found and not is_trial:
                try:
                    await self._apply(fresh, found, tell)
                except RequestError as err:
                    logger.warning("reload_refused changes=%s: %s", _listed(found), err)
                    raise
                logger.info("reloaded changes=%s", _listed(found))
            return found

    async def _read(self) -> Settings:
        if self._origins is None:
            raise ReloadRefused("Nothing was changed: this front cannot read its configuration")
        try:
            return await asyncio.to_thread(self._origins.read_again)
        except ConfigError as err:
            raise InvalidConfiguration(f"Nothing was changed: {err}") from err

    async def _apply(self, fresh: Settings, found: Sequence[Change], tell: OnReplacement) -> None:
        models: dict[str, dict[str, Any]] = {}
        for change in found:
            if change.model is not None:
                config = fresh.config.models[change.model]
                value = getattr(config, change.key.name)  # with absolute paths
                models.setdefault(change.model, {})[change.key.name] = value
        n_sequences = fresh.config.admission.max_concurrent_requests
        is_larger = n_sequences > self._config.admission.max_concurrent_requests
        needs_workers = any(
            change.key.reload is Reload.SWAP and (change.model is not None or is_larger)
            for change in found
        )
        await self._fleet.reconfigure(models, n_sequences, needs_workers=needs_workers, tell=tell)
        keys = [(one.key.section, one.key.name) for one in found if one.model is None]
        write(self._config, fresh.config, keys)
        self.values = fresh.values
        logging.getLogger().setLevel(self._config.server.log_level.upper())
        self._applied()

    async def watch(self) -> None:
        """Reload whenever the file has changed, for ever. A refusal is logged once a change."""
        origins = self._origins
        if origins is None or origins.file is None or not self._config.server.reload_on_change:
            return
        # not the stamp of now: the file may have changed since it was read
        seen = known = origins.stamp
        while True:
            await asyncio.sleep(LOOK_S)
            now = await asyncio.to_thread(stamp_of, origins.file)
            is_settled, seen = now == seen, now
            if is_settled and now != known:
                known = now
                await self.reload_logged("the file has changed")

    async def reload_logged(self, why: str) -> None:
        """Reload for a caller that has no one to tell."""
        logger.info("reload_begun: %s", why)
        try:
            await self.reload()
        except RequestError as err:
            logger.warning("configuration_not_reloaded: %s", err.message)
        except Exception:  # the boundary of a task that must go on
            logger.exception("reload_failed")


def _listed(found: Sequence[Change]) -> str:
    return ", ".join(map(str, found))
