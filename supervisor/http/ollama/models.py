"""`GET /api/tags`, `/api/ps`, `/api/version` and `POST /api/show`."""

import time
from typing import Any

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from gpufc.facts import ModelFacts
from supervisor.fleet.model_state import LOADED, ModelState
from supervisor.http.edge.body import read_json
from supervisor.http.edge.context import Services, json_response, services
from supervisor.http.generation.loaded import loaded
from supervisor.http.generation.model_states import state_of
from supervisor.http.ollama.answers import written
from supervisor.http.ollama.details import (
    Details,
    capabilities,
    details,
    model_info,
    parameters,
    template,
)
from supervisor.http.ollama.names import served, tagged

VERSION = "0.32.0"
"""The version of Ollama whose API this is. Clients refuse older ones than they were written for."""

NEVER = "2999-12-31T00:00:00+00:00"
"""When a model that stays is unloaded. Later years overflow in some clients' clocks."""


NO_DIGEST = "0" * 64
"""Of a model that has not been loaded yet. Ollama's own client cuts twelve characters off it."""


class Tag(Struct, frozen=True, kw_only=True):
    """A served model. Some clients drop the whole list if one field is missing or null."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class LoadedModel(Tag, frozen=True, kw_only=True):
    """A model that a worker has loaded, and its place in memory."""

    expires_at: str = NEVER
    size_vram: int
    context_length: int


class Models(Struct, frozen=True):
    models: list[Tag]


class LoadedModels(Struct, frozen=True):
    models: list[LoadedModel]


class Version(Struct, frozen=True):
    version: str = VERSION


class ShowBody(Struct, frozen=True):
    """`name` is the older name of `model`."""

    model: str | None = None
    name: str | None = None


class Shown(Struct, frozen=True, kw_only=True):
    """Everything about one model."""

    license: str | UnsetType = UNSET
    modelfile: str
    parameters: str
    template: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


async def list_tags(request: web.Request) -> web.Response:
    """All served models, loaded or not. Does not wait."""
    front = services(request)
    return json_response(Models([Tag(**_tag(front, name)) for name in front.fleet.models()]))


async def list_loaded(request: web.Request) -> web.Response:
    """The models that a worker has loaded."""
    front = services(request)
    found = []
    for name in front.fleet.models():
        facts, now = front.dispatcher.facts(name), state_of(front, name)
        if facts is not None and now.state in LOADED:
            found.append(
                LoadedModel(
                    **_tag(front, name),
                    expires_at=_expires_at(now),
                    size_vram=facts.device_bytes,
                    context_length=facts.n_ctx,
                )
            )
    return json_response(LoadedModels(found))


async def show(request: web.Request) -> web.Response:
    """One model in full. Waits while it is loaded for the first time."""
    body = await read_json(request, ShowBody)
    front = services(request)
    name = served(front, body.model or body.name)
    return json_response(_shown(front, name, await loaded(front, name)))


async def version(_request: web.Request) -> web.Response:
    """The version of the API, not of this service."""
    return json_response(Version())


def _expires_at(now: ModelState) -> str:
    return NEVER if now.expires_in_s is None else written(time.time() + now.expires_in_s)


def _tag(front: Services, name: str) -> dict[str, Any]:
    facts = front.dispatcher.facts(name)
    return {
        "name": tagged(name),
        "model": tagged(name),
        "modified_at": _modified_at(front, facts),
        "size": facts.model_bytes if facts else state_of(front, name).size_bytes,
        "digest": facts.fingerprint if facts else NO_DIGEST,
        "details": details(facts),
    }


def _shown(front: Services, name: str, facts: ModelFacts) -> Shown:
    abilities = capabilities(facts)
    license_name = facts.metadata.get("general.license")
    return Shown(
        license=license_name if isinstance(license_name, str) else UNSET,
        modelfile=f"# served by gpufc\nFROM {name}\n",
        parameters=parameters(facts),
        template=template(facts, abilities),
        details=details(facts),
        model_info=model_info(facts, name),
        capabilities=abilities,
        modified_at=_modified_at(front, facts),
    )


def _modified_at(front: Services, facts: ModelFacts | None) -> str:
    return written((facts.modified_at if facts else 0.0) or front.started_at)
