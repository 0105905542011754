"""What one template writes around the last message, found by trying. Pure.

A prompt that ends with the last message in its frame has been told the message. So a template needs
not be rendered a second time to see whether it leaves a short message out.
"""

from collections.abc import Iterable, Sequence
from itertools import takewhile

from msgspec import Struct

from engine_worker.prompts.conversation import Conversation, Message
from engine_worker.prompts.traits import NEEDLE, Render

LEAST_CHARS = 4
"""Of a frame's first part. A shorter one may be the end of any text."""

_USER = {"role": "user", "content": "Hello."}
_ANSWER = {"role": "assistant", "content": "Good morning."}


class Frame(Struct, frozen=True):
    """The text between two messages, and the text behind the last one."""

    before: str
    after: str

    def holds(self, text: str, content: str, earlier: Iterable[str]) -> bool:
        """Whether a prompt's text ends with a message of this content, which a template may trim.
        `earlier` are the contents before it: one of them may stand in the frame in its place."""
        said = content.strip()
        forms = (said, content)
        if not text.endswith(tuple([self.before + form + self.after for form in forms])):
            return False
        framed = self.before + said
        return not any(one == said or one.endswith(framed) for one in map(str.strip, earlier))


def frame_of(role: str, render: Render) -> Frame | None:
    """The frame of a role's message behind which an answer follows. None where a template has no
    such message, or writes it in another way as the conversation becomes longer."""
    last: Message = {"role": role, "content": NEEDLE}
    conversations = ([last], [_USER, _ANSWER, last], [_USER, _ANSWER, _USER, _ANSWER, last])
    parts = []
    for messages in conversations:
        before, found, after = (render(Conversation(messages)) or "").rpartition(NEEDLE)
        if not found:
            return None
        parts.append((before, after))
    if len({after for _, after in parts}) > 1:
        return None
    common = _common_end([before for before, _ in parts])
    return Frame(common, parts[0][1]) if len(common) >= LEAST_CHARS else None


def _common_end(texts: Sequence[str]) -> str:
    alike = takewhile(lambda ends: len(set(ends)) == 1, zip(*map(reversed, texts), strict=False))
    first = texts[0]
    return first[len(first) - len(list(alike)) :]
