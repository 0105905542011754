"""`GET /v1/models` and `/v1/models/{id}`."""

from aiohttp import web
from msgspec import UNSET, Struct, UnsetType, structs

from supervisor.http.edge.context import Services, json_response, services


class Model(Struct, frozen=True):
    """A served model, or a LoRA adapter of the model `parent`. `meta` has the facts of the model's
    latest worker, null before one was ready."""

    id: str
    created: int
    meta: dict[str, int] | None
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
    return Model(name, int(front.started_at), meta)
