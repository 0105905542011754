"""Names of models as Ollama's clients send and expect them."""

from gpufc.errors import ModelNotFound
from supervisor.fleet.names import LATEST
from supervisor.http.edge.context import Services

MOST_SHOWN = 256
"""Characters of an unknown name that an error repeats."""


def served(front: Services, name: str | None) -> str:
    """The served name that a client's name means. Raises `ModelNotFound` in Ollama's words, which
    its clients look for."""
    try:
        return front.fleet.resolve(name or None)
    except ModelNotFound as err:
        if not name:
            raise
        raise ModelNotFound(f"model '{name[:MOST_SHOWN]}' not found", param="model") from err


def tagged(name: str) -> str:
    """A served name with a tag: clients take names apart at the colon."""
    return name if ":" in name else name + LATEST
