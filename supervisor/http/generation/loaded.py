"""Waiting for a model's first load, for routes that need its facts."""

from gpufc.errors import InternalError
from gpufc.facts import ModelFacts
from gpufc.protocol import TextPrompt
from supervisor.http.edge.context import Services


async def loaded(front: Services, model: str) -> ModelFacts:
    """Wait until a worker has loaded the model; its facts. Raises `RequestError` if none comes."""
    facts = front.dispatcher.facts(model)
    if facts is None:
        await front.dispatcher.prepare(model, TextPrompt("."), reserve=None)
        facts = front.dispatcher.facts(model)
    if facts is None:
        raise InternalError("The engine has answered before it was ready")
    return facts
