"""`GET /v1/models` and `/v1/models/{id}` in Anthropic's form."""

from datetime import UTC, datetime

from aiohttp import web
from msgspec import Struct

from supervisor.http.edge.context import Services, json_response, services


class ModelInfo(Struct, frozen=True, kw_only=True):
    """A served model. Its limits are null before its first worker was ready."""

    id: str
    type: str = "model"
    display_name: str
    created_at: str
    lifecycle: str = "active"
    max_input_tokens: int | None
    max_tokens: int | None


class ModelPage(Struct, frozen=True):
    """All models: there is no second page."""

    data: list[ModelInfo]
    first_id: str | None
    last_id: str | None
    has_more: bool = False


async def list_models(request: web.Request) -> web.Response:
    """All served models, loaded or not."""
    front = services(request)
    names = front.fleet.models()
    first, last = (names[0], names[-1]) if names else (None, None)
    return json_response(ModelPage([_model(front, name) for name in names], first, last))


async def get_model(request: web.Request) -> web.Response:
    """One model, by its name or an alias."""
    front = services(request)
    return json_response(_model(front, front.fleet.resolve(request.match_info["model"])))


def _model(front: Services, name: str) -> ModelInfo:
    facts = front.dispatcher.facts(name)
    n_ctx = facts.n_ctx if facts else None
    started = datetime.fromtimestamp(int(front.started_at), UTC)
    return ModelInfo(
        id=name,
        display_name=name,
        created_at=started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        max_input_tokens=n_ctx,
        max_tokens=n_ctx,
    )
