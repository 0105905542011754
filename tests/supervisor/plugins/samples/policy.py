"""Chooses workers and places as its options say, or fails as they say."""

import os
import time
from typing import Any

from supervisor.plugins.api import Batching, Info, Load, Refuse, Sequence, Worker, hook


class Plugin:
    def __init__(
        self, fault: str = "", workers: tuple[str, ...] = (), later: dict[str, int] | None = None
    ) -> None:
        self.fault = fault
        self.workers = list(workers)
        self.later = later or {}

    @hook
    def on_route(self, info: Info, sequence: Sequence, workers: list[Worker]) -> Any:
        self.fail()
        if self.fault == "nonsense":
            return ["no-such-worker"]
        if self.fault == "flood":
            return "x" * 100_000_000
        if self.fault == "number":
            return 7
        return self.workers or None

    @hook
    def on_batch(self, info: Info, sequence: Sequence, load: Load) -> Any:
        self.fail()
        if self.fault == "nonsense":
            return {"later": "soon"}
        if self.fault == "number":
            return Batching(later=10**9)
        return Batching(self.later.get(str(sequence.tokens), 0), chunk_tokens=64)

    def fail(self) -> None:
        match self.fault:
            case "raise":
                raise ValueError("a secret detail")
            case "refuse":
                raise Refuse("not today")
            case "hang":
                time.sleep(3600)
            case "spin":
                while True:
                    pass
            case "die":
                os._exit(9)
