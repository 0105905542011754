"""Waiting for a model: for its first load, by routes that need its facts, or for any."""

from gpufc.errors import InternalError
from gpufc.facts import ModelFacts
from gpufc.protocol import TextPrompt
from supervisor.http.edge.context import Services


async def loaded(front: Services, model: str) -> ModelFacts:
    """Wait until a worker has loaded the model; its facts. Raises `RequestError` if none comes."""
    facts = front.dispatcher.facts(model)
    if facts is None:
        await in_memory(front, model)
        facts = front.dispatcher.facts(model)
    if facts is None:
        raise InternalError("The engine has answered before it was ready")
    return facts


async def in_memory(front: Services, model: str) -> None:
    """Wait until a worker of the model is ready; loads it. Raises `RequestError` if none comes."""
    if not front.dispatcher.demand.usage(model).has_worker:
        await front.dispatcher.asking.prepare(model, TextPrompt("."), reserve=None)
