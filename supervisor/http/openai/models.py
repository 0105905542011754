"""`GET /v1/models` and `/v1/models/{id}`."""

from aiohttp import web
from msgspec import Struct

from supervisor.http.edge.context import Services, json_response, services


class Model(Struct, frozen=True):
    """A served model. `meta` has its latest worker's facts, null before one was ready."""

    id: str
    created: int
    meta: dict[str, int] | None
    object: str = "model"
    owned_by: str = "gpufc"


class ModelList(Struct, frozen=True):
    data: list[Model]
    object: str = "list"


async def list_models(request: web.Request) -> web.Response:
    """All served models, loaded or not."""
    front = services(request)
    return json_response(ModelList([_model(front, name) for name in front.fleet.models()]))


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
