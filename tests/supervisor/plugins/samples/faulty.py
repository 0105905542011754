"""Does to the hooks whatever its options say."""

import os
import time
from typing import Any

from supervisor.plugins.api import Delta, Identity, Refuse, hook


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Plugin:
    def __init__(self, fault: str, only: str = "") -> None:
        """`only`: the fault is for texts with this part."""
        self.fault = fault
        self.only = only

    @hook
    def before_admission(self, request: Any) -> Any:
        return self.act(request) if "request" in self.fault else None

    @hook
    def on_delta(self, text: str, final: bool) -> Any:
        is_good = "request" in self.fault or self.only not in text
        return None if is_good else self.act(text)

    @hook
    def on_prompt(self, text: str) -> str | None:
        return text.replace("rendered", "changed")

    @hook
    def authenticate(self, headers: dict[str, str]) -> Identity | None:
        name = headers.get("x-user", "")
        if name == "mallory":
            raise Refuse("mallory is not welcome")
        return Identity(name) if name else None

    def act(self, given: Any) -> Any:
        match self.fault.removeprefix("request "):
            case "raise":
                raise ValueError("a secret detail")
            case "mute":
                raise Mute
            case "hang":
                time.sleep(3600)
            case "spin":
                while True:
                    pass
            case "die":
                os._exit(9)
            case "flood":
                return "x" * 100_000_000
            case "grow":
                return "x" * 1_000_000
            case "nonsense":
                return {"what": [1, 2]}
            case "keep":
                return Delta(given, keep=10_000)
            case "refuse":
                raise Refuse("not today")
        return None
