"""`GET /v1/models` and `/v1/models/{id}`."""

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType, structs

from supervisor.fleet.model_state import LOADED, ModelPhase, ModelState
from supervisor.http.edge.context import Services, json_response, services
from supervisor.http.generation.model_states import state_of


class Status(Struct, frozen=True):
    """`value` is `unloaded`, `loading` or `loaded`. `detail` is for people."""

    value: str
    failed: bool = False
    detail: str = ""


class Model(Struct, frozen=True):
    """A served model, or a LoRA adapter of the model `parent`. `meta` has the facts of the model's
    latest worker, null before one was ready. `state` says whether it is in memory; `status` says
    the same in llama-server's words."""

    id: str
    created: int
    meta: dict[str, int] | None
    state: ModelPhase
    status: Status
    size_bytes: int
    need_bytes: int
    object: str = "model"
    owned_by: str = "gpufc"
    parent: str | UnsetType = UNSET


class ModelList(Struct, frozen=True):
    data: list[Model]
    object: str = "list"


async def list_models(request: web.Request) -> web.Response:
    """All served models, loaded or not, each with its LoRA adapters."""
    front = services(request)
    listed = []
    for name in front.fleet.models():
        model = _model(front, name)
        adapters = front.fleet.adapters(name)
        listed += [model, *(structs.replace(model, id=one, parent=name) for one in adapters)]
    return json_response(ModelList(listed))


async def get_model(request: web.Request) -> web.Response:
    """One model, by its name or an alias."""
    front = services(request)
    return json_response(_model(front, front.fleet.resolve(request.match_info["model"])))


def _model(front: Services, name: str) -> Model:
    facts = front.dispatcher.facts(name)
    meta = None
    if facts is not None:
        meta = {
            "n_ctx": facts.n_ctx,
            "n_ctx_train": facts.n_ctx_train,
            "n_vocab": facts.n_vocab,
            "n_embd": facts.embedding_size,
            "n_params": facts.n_params,
            "size": facts.model_bytes,
        }
    now = state_of(front, name)
    return Model(
        name,
        int(front.started_at),
        meta,
        now.state,
        _status(now),
        now.size_bytes,
        now.host_bytes + now.mapped_bytes + now.device_bytes,
    )


def _status(now: ModelState) -> Status:
    value = "unloaded"
    if now.state in LOADED:
        value = "loaded"
    elif now.state in {ModelPhase.LOADING, ModelPhase.WAITING}:
        value = "loading"
    return Status(value, now.state is ModelPhase.FAILED, now.detail)
