"""Writes one line for each request, each answer and each event to a file."""

import json
from pathlib import Path

from supervisor.plugins.api import Answer, Event, Info, Refuse, Request, hook


class Plugin:
    def __init__(self, file: str, forbidden: str = "") -> None:
        self.file = Path(file)
        self.forbidden = forbidden

    def note(self, **facts: object) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(facts) + "\n")

    @hook
    def before_admission(self, request: Request) -> None:
        text = "".join(
            prompt.text or "".join(one.content for one in prompt.messages or [])
            for prompt in request.prompts
        )
        self.note(what="request", who=request.info.principal, text=text)
        if self.forbidden and self.forbidden in text:
            raise Refuse(f"{self.forbidden!r} may not be asked about")

    @hook
    def on_finish(self, info: Info, answer: Answer) -> None:
        self.note(what="answer", text=answer.text, reason=answer.reason)

    @hook
    def on_event(self, event: Event) -> None:
        self.note(what=event.kind, worker=event.worker, detail=event.detail)
