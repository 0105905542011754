"""Hides secrets of the form `sk-` and letters, also where a secret comes in pieces."""

import re

from supervisor.plugins.api import Delta, Info, Message, Request, hook

SECRET = re.compile(r"sk-[a-z0-9]+")
BEGINNING = re.compile(r"s(k(-[a-z0-9]*)?)?$")


class Answers:
    """In answers only."""

    def __init__(self, mark: str = "[hidden]") -> None:
        self.mark = mark

    @hook
    def on_delta(self, info: Info, text: str, final: bool) -> Delta:
        found = None if final else BEGINNING.search(text)
        keep = len(text) - found.start() if found else 0
        return Delta(SECRET.sub(self.mark, text[: len(text) - keep]), keep)


class Plugin(Answers):
    @hook
    def before_admission(self, request: Request) -> Request:
        for prompt in request.prompts:
            if prompt.text is not None:
                prompt.text = SECRET.sub(self.mark, prompt.text)
            prompt.messages = prompt.messages and [
                Message(one.role, SECRET.sub(self.mark, one.content), one.origin)
                for one in prompt.messages
            ]
        return request
