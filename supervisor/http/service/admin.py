"""`/admin/…`: the operator's commands, for programs with the scope `admin`."""

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from gpufc.changes import rows
from gpufc.config import Config
from gpufc.errors import NotFound, PermissionDenied
from supervisor.fleet.operation import Operation
from supervisor.fleet.port import ModelChange
from supervisor.http.edge.body import read_json
from supervisor.http.edge.context import Operator, json_response, services
from supervisor.http.generation.model_states import state_of
from supervisor.http.service.stats import worker_rows
from supervisor.routing.canary import CanaryRules


class RestartRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The options of `gpufc-supervisor restart`."""

    worker: str | None = None
    now: bool | None = None


class SwapRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The options of `gpufc-supervisor swap`. `model` is another name of `name`."""

    model_path: Annotated[str, Meta(min_length=1, max_length=4096)]
    name: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    model: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    n_ctx: Annotated[int, Meta(ge=16, le=16_777_216)] | None = None
    n_gpu_layers: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    canary: CanaryRules | None = None


class ReloadRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The options of `gpufc-supervisor reload`."""

    dry_run: bool | None = None


async def restart(request: web.Request) -> web.Response:
    """`POST /admin/restart`: answers when the new workers serve."""
    asked = await read_json(request, RestartRequest)
    return await _answered(request, _operator(request).restart(asked.worker, asked.now is True))


async def swap(request: web.Request) -> web.Response:
    """`POST /admin/swap`: answers when the new model serves, with 409 if the old one goes on."""
    asked = await read_json(request, SwapRequest)
    config, fleet = services(request).config, services(request).fleet
    served = [row.model_path for row in fleet.workers() if row.model_path and not row.within]
    places = await asyncio.to_thread(allowed_places, config, served)
    path = await asyncio.to_thread(allowed_model, asked.model_path, places)
    change = ModelChange(
        model_path=str(path),
        n_ctx=asked.n_ctx,
        n_gpu_layers=asked.n_gpu_layers,
        canary=asked.canary,
        within=tuple(map(str, places)),
    )
    return await _answered(request, _operator(request).swap(asked.name or asked.model, change))


async def reload(request: web.Request) -> web.Response:
    """`POST /admin/reload`: answers when the configuration is in force, or why nothing changed."""
    asked = await read_json(request, ReloadRequest)
    reloading = _operator(request).reload(is_trial=asked.dry_run is True)
    await reloading.operation.wait()
    changed = "would_reload" if asked.dry_run else "reloaded"
    status = changed if reloading.changes else "unchanged"
    return json_response({"status": status, "changes": rows(reloading.changes)})


class ModelRequest(Struct, frozen=True):
    """The argument of `gpufc-supervisor load` and `unload`."""

    model: Annotated[str, Meta(min_length=1, max_length=4096)]


async def load_model(request: web.Request) -> web.Response:
    """Load a model: answers when it is ready."""
    model = await _model_of(request)
    await _operator(request).load(model).wait()
    return json_response(state_of(services(request), model))


async def unload_model(request: web.Request) -> web.Response:
    """Unload a model: answers when its requests and its workers have ended."""
    model = await _model_of(request)
    await _operator(request).unload(model).wait()
    return json_response(state_of(services(request), model))


async def _model_of(request: web.Request) -> str:
    """The served name that the path or the body means. Raises `ModelNotFound`."""
    named = request.match_info.get("model")
    if named is None:
        named = (await read_json(request, ModelRequest)).model
    return services(request).fleet.resolve(named)


def allowed_places(config: Config, served: Collection[str] = ()) -> tuple[Path, ...]:
    """The folders and files that may be loaded over HTTP, by real paths: the allowed folders, the
    models of the configuration, and `served` ones, which the operator has named since.

    By default the folder that a model of the configuration really lies in is allowed too, as in a
    cache of links; the root is not.
    """
    own = [model.model_path for model in config.models.values() if model.model_path]
    known = [_resolved(file) for file in (*own, *served)]
    folders = [_resolved(folder) for folder in config.model_folders()]
    if config.server.model_dirs is None:
        folders += [file.parent for file in map(_resolved, own) if file is not None]
        folders = [folder for folder in folders if folder and folder.parents]
    return tuple(filter(None, (*folders, *known)))


def allowed_model(given: str, places: Collection[Path]) -> Path:
    """The model file, if it lies in one of the places, or is one. The worker looks again when it
    opens the file, and its other parts.

    The file that a link leads to counts. The link's own path is returned, because the parts of a
    split model are found by its name. Raises `PermissionDenied`, which does not tell whether the
    file exists.
    """
    path = _resolved(given)
    if path is None or not path.is_file() or not any(map(path.is_relative_to, places)):
        raise PermissionDenied("No such model in the allowed folders (see `model_dirs`)")
    return Path(given).absolute()


def _resolved(given: str) -> Path | None:
    """A path with its links followed; None if it does not exist."""
    try:
        return Path(given).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return None


async def _answered(request: web.Request, replacing: Operation) -> web.Response:
    await replacing.wait()
    rows = worker_rows(services(request))
    return json_response({"status": "ready", "workers": rows})


def _operator(request: web.Request) -> Operator:
    operator = services(request).operator
    if operator is None:
        raise NotFound(f"There is no route {request.method} {request.path}")
    return operator
