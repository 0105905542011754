"""The commands' side of the control socket. Synchronous, standard library only."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpufc.errors import ConfigError, GpufcError
from supervisor.runtime_dir import RuntimeDir

TIMEOUT_S = 10.0
STARTING_S = 5.0
"""A front makes its control socket within this time of taking its folder's lock."""


class NotRunning(GpufcError):
    """No front answers in this runtime folder."""


class Refused(GpufcError):
    """The front runs and refuses the command."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class ControlClient:
    """A running front, reached through its control socket. Each call opens a connection.

    Raises `NotRunning`, `Refused`, or `ConfigError` for a request that the front does not
    understand.
    """

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self.path = path
        self._timeout_s = timeout_s

    def status(self) -> dict[str, Any]:
        """The `/stats` document with `front`."""
        return dict(self._get("/status"))

    def config(self) -> list[dict[str, Any]]:
        """Effective values as rows of `settings.row`."""
        return list(self._get("/config"))

    def text(self, route: str) -> str:
        """The whole answer of a route that only reads."""
        with self._answer("GET", route, None) as response:
            return response.read().decode()

    def stop(self, now: bool) -> Iterator[dict[str, Any]]:
        """Request a stop. Yields the number of running requests until the front has ended."""
        return self._post("/stop", {"now": now})

    def drain(self, lead_s: float, wait: bool) -> Iterator[dict[str, Any]]:
        """Request that new requests be refused after `lead_s`. Yields the number of running ones,
        until none is left if it is to `wait`."""
        return self._post("/drain", {"lead_s": lead_s, "wait": wait})

    def undrain(self) -> None:
        """Request that new requests be taken again."""
        list(self._post("/undrain", {}))

    def restart(self, worker: str | None, now: bool) -> Iterator[dict[str, Any]]:
        """Request new workers. Yields progress until all are replaced or one has failed."""
        return self._post("/restart", {"worker": worker, "now": now})

    def swap(
        self,
        model_path: str,
        name: str | None,
        n_ctx: int | None,
        n_gpu_layers: int | None,
        canary: dict[str, Any] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Request another model, after a canary by these rules if there are any. Yields progress
        until it serves or is refused."""
        body = {
            "model_path": model_path,
            "name": name,
            "n_ctx": n_ctx,
            "n_gpu_layers": n_gpu_layers,
            "canary": canary,
        }
        return self._post("/swap", body)

    def reload(self, dry_run: bool) -> Iterator[dict[str, Any]]:
        """Request the configuration to be read again. Yields progress, then `done` with the
        changes, or `failed`."""
        return self._post("/reload", {"dry_run": dry_run})

    def load(self, model: str) -> Iterator[dict[str, Any]]:
        """Request a model in memory. Yields progress until it is ready or cannot be loaded."""
        return self._post("/load", {"model": model})

    def unload(self, model: str) -> Iterator[dict[str, Any]]:
        """Request a model out of memory. Yields progress until its workers have ended."""
        return self._post("/unload", {"model": model})

    def upgrade(self) -> Iterator[dict[str, Any]]:
        """Request a new front. Yields progress until it serves or has failed."""
        return self._post("/upgrade", {})

    def network(self, change: str) -> Iterator[dict[str, Any]]:
        """Request to `connect` to the network or to `disconnect`. Yields its state then."""
        return self._post(f"/network/{change}", {})

    def invite_hosts(self, n_hosts: int, lifetime_s: float | None = 3600.0) -> dict[str, Any]:
        """The content of a new join file, by which so many hosts may join; None: without an
        end."""
        body = {"n_hosts": n_hosts, "lifetime_s": lifetime_s}
        return next(self._post("/hosts/invite", body))

    def drain_host(self, machine: str, undo: bool) -> Iterator[dict[str, Any]]:
        """Request a machine's workers to move elsewhere, or allow it workers again. Yields progress
        until they have moved."""
        return self._post("/hosts/drain", {"machine": machine, "undo": undo})

    def forget_host(self, machine: str) -> None:
        """Request a machine to be turned away from now on."""
        for _ in self._post("/hosts/forget", {"machine": machine}):
            pass

    def _get(self, route: str) -> Any:
        with self._answer("GET", route, None) as response:
            return json.load(response)

    def _post(self, route: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with self._answer("POST", route, json.dumps(body)) as response:
            while line := response.readline():
                if line.strip():  # a repeated line only shows that the front is alive
                    yield json.loads(line)

    @contextmanager
    def _answer(
        self, method: str, route: str, body: str | None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = _UnixConnection(self.path, self._timeout_s)
        try:
            connection.request(method, route, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                raise _error(response)
            yield response
        except (FileNotFoundError, ConnectionRefusedError):
            raise self._nobody() from None
        except TimeoutError:
            raise NotRunning(
                f"the front in {self.path.parent} has not answered within {self._timeout_s:.0f} s;"
                f" its log in {self.path.parent / 'logs'} may say why"
            ) from None
        except (ConnectionError, http.client.HTTPException) as err:
            raise NotRunning(f"the front in {self.path.parent} has ended: {err}") from err
        except PermissionError:
            raise NotRunning(
                f"the front in {self.path.parent} belongs to another user;"
                " run the command as that user"
            ) from None
        except OSError as err:
            raise NotRunning(f"{self.path} cannot be reached: {err}") from err
        finally:
            connection.close()

    def _nobody(self) -> NotRunning:
        """The reason why the socket does not answer. A front without its socket is reached by
        signals only."""
        folder = RuntimeDir.find(str(self.path.parent))
        pid = folder.front_pid()
        if pid is None:
            return NotRunning(
                f"nothing runs in {folder.path}; `{folder.command('start')}` starts it"
            )
        if (folder.held_for_s() or 0.0) < STARTING_S:
            return NotRunning(f"a front (pid {pid}) is just starting in {folder.path}; try again")
        return NotRunning(
            f"a front (pid {pid}) runs in {folder.path} but its control socket is gone; "
            f"end it with `kill {pid}`"
        )


def _error(response: http.client.HTTPResponse) -> GpufcError:
    try:
        message = str(json.load(response)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the front answered {response.status} {response.reason}"
    return ConfigError(message) if response.status in (400, 404) else Refused(message)
