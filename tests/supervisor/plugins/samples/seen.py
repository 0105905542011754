"""Writes what each hook was shown to a file, and changes nothing."""

import json
from pathlib import Path

from supervisor.plugins.api import Request, hook


class Plugin:
    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def note(self, hook: str, text: str | None) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps([hook, text]) + "\n")

    @hook
    def before_admission(self, request: Request) -> None:
        self.note("before_admission", request.prompts[0].text)

    @hook
    def on_prompt(self, text: str) -> None:
        self.note("on_prompt", text)

    @hook
    def on_delta(self, text: str, final: bool) -> None:
        self.note("final" if final else "on_delta", text)
