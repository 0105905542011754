"""The names that models are served under, and the other names that clients may use. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from gpufc.adapters import adapter_files
from gpufc.config import DEFAULT_MODEL, ModelConfig
from gpufc.errors import ModelNotFound

LATEST = ":latest"
"""Ollama's default tag. Its clients add it to names without one, and may leave it out."""

NONE = "no model is served: put a GGUF file into models_dir"

MAX_NAME_CHARS = 256
"""A longer name is no model's: a client's text of any length is not compared with patterns."""


class ServedNames:
    """Served name → other names. A served name stays when its model is swapped.

    There are two kinds of other names. *Aliases* (file name, stem, `default`) mean the only model.
    *Configured* ones are names, or patterns in which `*` stands for any text; they also choose
    among several models, and an answer shows them to the client that has used them.
    """

    def __init__(
        self,
        aliases: Mapping[str, Iterable[str]] = {},
        configured: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._aliases = {model: set(names) for model, names in aliases.items()}
        self._configured = dict(configured or {})

    def known(self) -> dict[str, tuple[str, ...]]:
        """Every served name with its aliases, apart from the configured ones."""
        return {model: tuple(sorted(names)) for model, names in self._aliases.items()}

    def serve(self, model: str, aliases: Iterable[str], configured: Sequence[str] = ()) -> None:
        """Serve one more name."""
        self._aliases[model] = set(aliases)
        self._configured[model] = configured

    def forget(self, model: str) -> None:
        """Serve a name no more."""
        del self._aliases[model]
        self._configured.pop(model, None)

    def add(self, model: str, *aliases: str) -> None:
        """Add aliases to a served name."""
        self._aliases[model].update(aliases)

    def configure(self, model: str, names: Sequence[str]) -> None:
        """Give a served name other configured names."""
        self._configured[model] = names

    def resolve(self, name: str | None) -> str:
        """The served name that a client's `model` means. Raises `ModelNotFound`.

        The first of these that fits wins: a served name, a configured name, a pattern, an alias of
        the only model. `:latest` at a name's end makes no difference.
        """
        if name is None:
            if len(self._aliases) == 1:
                return next(iter(self._aliases))
            told = f"several models are served: {self._told()}" if self._aliases else NONE
            raise ModelNotFound(told, param="model")
        found = self._served(name) or self._configured_for(name) or self._only(name)
        if found is None:
            raise ModelNotFound(
                f"The model {name[:MAX_NAME_CHARS]!r} does not exist; served: {self._told()}. The"
                " configuration key `aliases` gives a model more names",
                param="model",
            )
        return found

    def shown(self, name: str | None) -> str:
        """The name of the model in an answer: the served one, or the client's own where that is a
        configured one. Raises `ModelNotFound`."""
        if name is not None and not self._served(name) and self._configured_for(name):
            return name
        return self.resolve(name)

    def to_be_swapped(self, name: str | None) -> str:
        """The served name that a swap means. With one model served, an unknown name means it.

        Raises `ModelNotFound`."""
        if name is not None and len(self._aliases) == 1:
            (only,) = self._aliases
            return only
        return self.resolve(name)

    def _served(self, name: str) -> str | None:
        return next((one for one in _spellings(name) if one in self._aliases), None)

    def _configured_for(self, name: str) -> str | None:
        if len(name) > MAX_NAME_CHARS:
            return None
        spellings = _spellings(name)
        for wanted in (False, True):  # whole names go before patterns
            for model, configured in self._configured.items():
                for one in configured:
                    if ("*" in one) is wanted and any(matches(one, name) for name in spellings):
                        return model
        return None

    def _only(self, name: str) -> str | None:
        if len(self._aliases) != 1:
            return None
        ((only, aliases),) = self._aliases.items()
        return only if any(one in aliases for one in _spellings(name)) else None

    def _told(self) -> str:
        return ", ".join(map(repr, self._aliases))


def matches(pattern: str, name: str) -> bool:
    """Whether a name is a pattern's, in time that is linear in both."""
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    if not name.startswith(first):
        return False
    *middle, last = rest
    at = len(first)
    for part in middle:
        found = name.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(name) - len(last) >= at and name.endswith(last)


def _spellings(name: str) -> tuple[str, str]:
    """A name with and without Ollama's tag, as given first."""
    other = name.removesuffix(LATEST) if name.endswith(LATEST) else name + LATEST
    return name, other


def served_name(config: ModelConfig) -> str:
    """The name that a model is served under: as configured, else the file's name."""
    if config.model is not None:
        return config.model
    return Path(config.model_path).stem if config.model_path else config.backend.value


def aliases(config: ModelConfig) -> set[str]:
    """The other names of a model that it has without being configured."""
    return {served_name(config), DEFAULT_MODEL, *file_names(config.model_path)}


def adapter_names(config: ModelConfig) -> tuple[str, ...]:
    """The names of a model's LoRA adapters."""
    return tuple(file.name for file in adapter_files(config.adapters))


def file_names(model_path: str | None) -> set[str]:
    """The aliases that come from a model's file."""
    return {Path(model_path).name, Path(model_path).stem} if model_path is not None else set()
