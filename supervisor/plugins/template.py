"""A plugin to copy: it adds a rule to each chat, and hides a word in each answer.

    cp TEMPLATE my_plugin.py
    gpufc-supervisor start --config my.toml        # plugins = ["my_plugin.py"]

Delete the hooks that you do not need. `PLUGINS.md` has the others.
"""

import re

from supervisor.plugins.api import Delta, Info, Message, Refuse, Request, hook

RULE = "Answer in one sentence."


class Plugin:
    """Made once for each process, with the `options` of the configuration."""

    def __init__(self, word: str = "banana", forbidden: str = "") -> None:
        self.word = word
        self.forbidden = forbidden

    @hook
    def before_admission(self, request: Request) -> Request:
        """Return the changed request, or None to change nothing."""
        for prompt in request.prompts:
            if prompt.messages is None:
                continue
            text = " ".join(message.content for message in prompt.messages)
            if self.forbidden and self.forbidden in text:
                raise Refuse(f"{self.forbidden} is not a subject here")
            prompt.messages.insert(0, Message("system", RULE))
        return request

    @hook
    def on_delta(self, info: Info, text: str, final: bool) -> Delta:
        """`keep` holds the end back if the word may begin there: it comes again with more."""
        text = re.sub(re.escape(self.word), "*" * len(self.word), text, flags=re.IGNORECASE)
        keep = 0 if final else beginning(self.word, text.lower())
        return Delta(text[: len(text) - keep], keep)


def beginning(word: str, text: str) -> int:
    """The characters at the end of a text that could be the beginning of a word."""
    lengths = range(min(len(word) - 1, len(text)), 0, -1)
    return next((n for n in lengths if text.endswith(word[:n])), 0)
