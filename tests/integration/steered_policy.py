"""A policy that does at each call what a file says."""

import json
import os
import time
from pathlib import Path
from typing import Any

from supervisor.plugins.api import Batching, Info, Load, Sequence, Worker, hook


class Plugin:
    """`file` holds one JSON object: a `fault`, or the `workers` to route to."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    @hook
    def on_route(self, info: Info, sequence: Sequence, workers: list[Worker]) -> Any:
        steered = json.loads(self.file.read_text())
        match steered.get("fault"):
            case "raise":
                raise ValueError("a fault of the test")
            case "hang":
                time.sleep(3600)
            case "die":
                os._exit(9)
            case "flood":
                return "x" * 100_000_000
            case "nonsense":
                return ["no-such-worker"]
        return steered.get("workers")


class ShortestFirst:
    """Each sequence counts as if it had come as many sequences later as its prompt has tokens."""

    @hook
    def on_batch(self, info: Info, sequence: Sequence, load: Load) -> Batching:
        return Batching(later=sequence.tokens)
