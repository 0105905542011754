"""The names that models are served under, and their aliases. Pure."""

from collections.abc import Iterable
from pathlib import Path

from gpufc.config import DEFAULT_MODEL, ModelConfig
from gpufc.errors import ModelNotFound


class ServedNames:
    """Served name → aliases. A served name stays when its model is swapped."""

    def __init__(self, aliases: dict[str, Iterable[str]]) -> None:
        self._aliases = {model: set(names) for model, names in aliases.items()}

    def known(self) -> dict[str, tuple[str, ...]]:
        """Every served name with its aliases."""
        return {model: tuple(sorted(names)) for model, names in self._aliases.items()}

    def add(self, model: str, *aliases: str) -> None:
        """Add aliases to a served name."""
        self._aliases[model].update(aliases)

    def resolve(self, name: str | None) -> str:
        """The served name that a client's `model` means. Raises `ModelNotFound`.

        With one model served, no name and its aliases (file name, stem, `default`) mean it too.
        """
        if name is not None and name in self._aliases:
            return name
        if len(self._aliases) == 1:
            ((only, aliases),) = self._aliases.items()
            if name is None or name in aliases:
                return only
        if name is None:
            raise ModelNotFound("several models are served: name one", param="model")
        raise ModelNotFound(f"The model {name!r} does not exist", param="model")

    def to_be_swapped(self, name: str | None) -> str:
        """The served name that a swap means. With one model served, an unknown name means it.

        Raises `ModelNotFound`."""
        if name is not None and len(self._aliases) == 1:
            (only,) = self._aliases
            return only
        return self.resolve(name)


def served_name(config: ModelConfig) -> str:
    """The name that a model is served under: as configured, else the file's name."""
    if config.model is not None:
        return config.model
    return Path(config.model_path).stem if config.model_path else config.backend.value


def aliases(config: ModelConfig) -> set[str]:
    """The other names of a model."""
    return {served_name(config), DEFAULT_MODEL, *file_names(config.model_path)}


def file_names(model_path: str | None) -> set[str]:
    """The aliases that come from a model's file."""
    return {Path(model_path).name, Path(model_path).stem} if model_path is not None else set()
