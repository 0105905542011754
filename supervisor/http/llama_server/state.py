"""`GET /props` and `/slots`: settings and load, in llama-server's form."""

from typing import Any

from aiohttp import web
from msgspec import Struct

import gpufc
from gpufc.ids import RequestId
from gpufc.sampling import SamplingParams
from supervisor.dispatch.request import GenerationRequest
from supervisor.http.edge.context import Services, json_response, services
from supervisor.http.generation.loaded import loaded
from supervisor.http.llama_server.answers import settings


class Slot(Struct, frozen=True, kw_only=True):
    """A place for one running sequence. Prompts are not shown: they are other clients'."""

    id: int
    n_ctx: int
    speculative: bool = False
    is_processing: bool


class DefaultSettings(Struct, frozen=True, kw_only=True):
    n_ctx: int
    params: dict[str, Any]


class Modalities(Struct, frozen=True):
    vision: bool = False
    audio: bool = False


class Props(Struct, frozen=True, kw_only=True):
    """The settings of a model."""

    default_generation_settings: DefaultSettings
    total_slots: int
    model_alias: str
    model_path: str
    modalities: Modalities = Modalities()
    chat_template: str
    bos_token: str
    eos_token: str
    build_info: str = f"gpufc-{gpufc.__version__}"
    is_sleeping: bool = False


async def get_props(request: web.Request) -> web.Response:
    """The settings of the model, or of the one that `?model=` names. Waits for its first load."""
    front = services(request)
    model = front.fleet.resolve(request.query.get("model"))
    facts = await loaded(front, model)
    return json_response(
        Props(
            default_generation_settings=DefaultSettings(
                n_ctx=facts.n_ctx, params=_defaults(front, model)
            ),
            total_slots=_n_slots(front),
            model_alias=model,
            model_path=_path(front, model),
            chat_template=facts.chat_template or "",
            bos_token=facts.bos_text,
            eos_token=facts.eos_text,
        )
    )


async def get_slots(request: web.Request) -> web.Response:
    """The places for running sequences, and how many of them are in use."""
    front = services(request)
    model = front.fleet.resolve(request.query.get("model"))
    facts = await loaded(front, model)
    n_running = front.dispatcher.occupancy.running
    return json_response(
        [
            Slot(id=number, n_ctx=facts.n_ctx, is_processing=number < n_running)
            for number in range(_n_slots(front))
        ]
    )


def _n_slots(front: Services) -> int:
    return front.config.admission.max_concurrent_requests


def _path(front: Services, model: str) -> str:
    paths = (row.model_path for row in front.fleet.workers() if row.model == model)
    return next((path for path in paths if path), "")


def _defaults(front: Services, model: str) -> dict[str, Any]:
    """The parameters of a request without any."""
    sampling = SamplingParams.of(0, [front.fleet.sampling(model)])
    plain = GenerationRequest(
        id=RequestId(""), model=model, prompts=(), sampling=sampling, created=0
    )
    return settings(plain) | {"seed": -1}
