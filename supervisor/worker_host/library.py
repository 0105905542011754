"""The model files of this machine: those at the front's paths, and those of the models folder.

All functions may block: they belong into threads. Copies get folders of their own below `copies`,
named by their content, so no copy replaces another model and a split model's parts stay together.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import structs

from gpufc.adapters import adapter_files
from gpufc.config import ModelConfig
from supervisor.cluster.messages import ModelPart, WantedModel
from supervisor.downloads.checksums import Checksums

logger = logging.getLogger(__name__)

COPIES = "copies"
CHECKSUMS = "checksums.json"
PART = ".part"
"""A file that is on its way."""

Told = Callable[[ModelPart, int], None]
"""Gets the bytes of a file that have been read for its checksum."""


class Library:
    """One models folder. It need not exist before the first copy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checksums = Checksums(folder / CHECKSUMS)

    def in_place(self, model: WantedModel) -> Path | None:
        """The first part at the front's path, if each part is there and samples are equal: a shared
        folder, or files that an operator has put there."""
        path = Path(model.path)
        beside = [path.with_name(part.name) for part in model.parts]
        if all(map(self._has_equal_samples, beside, model.parts)):
            return path
        return None

    def find(self, model: WantedModel, told: Told) -> Path | None:
        """The first part in the models folder, by the checksum of each part. Their names are those
        of the front's files, but for a model of one file. Reads files of the right size that were
        not read before."""
        first, is_split = model.parts[0], len(model.parts) > 1
        for candidate in self._of_size(first):
            if is_split and candidate.name != first.name:
                continue  # the engine finds the other parts by the first one's name
            if self._is(candidate, first, told) and all(
                self._is(candidate.with_name(part.name), part, told) for part in model.parts[1:]
            ):
                return candidate
        return None

    def has(self, path: Path, part: ModelPart, told: Told) -> bool:
        """Whether a file is this part, as far as its bytes say."""
        return self._is(path, part, told)

    def place_of(self, model: WantedModel) -> Path:
        """The folder for a copy of the model."""
        content = ",".join(part.sha256 or "" for part in model.parts)
        return self.folder / COPIES / hashlib.sha256(content.encode()).hexdigest()[:16]

    def _has_equal_samples(self, path: Path, part: ModelPart) -> bool:
        try:
            return path.stat().st_size == part.size and self.checksums.sample(path) == part.sample
        except (OSError, ValueError):
            return False

    def _of_size(self, part: ModelPart) -> Iterator[Path]:
        """Files of the folder that may be this part; first those of its name."""
        found = []
        for path in self._files():
            try:
                if path.suffix != PART and path.stat().st_size == part.size and path.is_file():
                    found.append(path)
            except OSError:
                continue
        yield from sorted(found, key=lambda path: (path.name != part.name, str(path)))

    def _files(self) -> Iterator[Path]:
        try:
            yield from self.folder.glob("*")
            yield from self.folder.glob(f"{COPIES}/*/*")
        except OSError as err:
            logger.warning("models_folder_unreadable folder=%s: %s", self.folder, err)

    def _is(self, path: Path, part: ModelPart, told: Told) -> bool:
        try:
            if path.stat().st_size != part.size:
                return False
            found = self.checksums.sha256(path, lambda n_bytes: told(part, n_bytes))
        except OSError:
            return False
        return found == part.sha256


def located(model: ModelConfig, paths: dict[str, str]) -> ModelConfig:
    """The configuration with this machine's paths in the place of the front's. A path that is not
    in `paths` stays; its keys are as `Path` spells them. An adapter keeps its name."""

    def here(path: str | None) -> str | None:
        return None if path is None else paths.get(str(Path(path)), path)

    return structs.replace(
        model,
        model_path=here(model.model_path),
        draft_model_path=here(model.draft_model_path),
        chat_template=here(model.chat_template),
        adapters=tuple(f"{file.name}={here(file.path)}" for file in adapter_files(model.adapters)),
    )
