"""A model's chat template: conversation in, prompt text out.

Templates come with models and are untrusted. The sandbox keeps them from Python's insides. It does
not bound their time and memory: `template_process.py` runs this module in a process of its own.
The environment is that of Hugging Face's `apply_chat_template`, which templates are written for.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from itertools import product
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from msgspec import structs

from engine_worker.prompts.conversation import Conversation, Message
from engine_worker.prompts.folding import folded
from engine_worker.prompts.frames import frame_of
from engine_worker.prompts.templates import CHATML, MAX_SOURCE_CHARS
from engine_worker.prompts.traits import NEEDLE, Traits, probed

MAX_RENDERED_CHARS = 16 << 20
MAX_REASON_CHARS = 500
TELLING_CHARS = 64
"""A text of so many characters is in a prompt because a message says it, and not by chance."""

_ROLES = ("system", "user", "assistant", "tool")
_ASKING = ("system", "user")
"""Roles of messages that are often the last one, and short."""


class TemplateError(Exception):
    """The template cannot be used, or refuses a conversation. The text says why, in one line."""


class ChatTemplate:
    """A compiled template with the spellings of the model's special tokens. Immutable.

    Raises `TemplateError` when the source is too long, no valid Jinja, or writes nothing of what a
    user says, be it a text or a list of parts.
    """

    def __init__(self, source: str | None, special_tokens: Mapping[str, str]) -> None:
        source = source or CHATML
        if len(source) > MAX_SOURCE_CHARS:
            raise TemplateError(f"it has {len(source)} characters, more than {MAX_SOURCE_CHARS}")
        try:
            self._template = _environment().from_string(source)
        except (jinja2.TemplateError, RecursionError, ValueError, MemoryError) as err:
            raise TemplateError(_first_line(err)) from err
        self._special_tokens = {"bos_token": "", "eos_token": "", **special_tokens}
        self._no_tools: list[Any] | None = None
        self.wants_parts: frozenset[str] = frozenset()
        self._try_user()
        self._try_other_roles()
        self.traits = self._probed()
        self._frames = {role: frame_of(role, self._rendered_if_taken) for role in _ASKING}

    def render(self, given: Conversation) -> str:
        """The prompt's text, of the conversation in the forms that the template can render.

        Raises `TemplateError` for what the template raises itself, unfit messages, an output over
        `MAX_RENDERED_CHARS`, and an output that does not depend on the last message's content.
        """
        taken = folded(given, self.traits)
        if given.continues:
            return self._continued(taken)
        text = self._rendered(taken)
        said = taken.messages[-1]["content"] or ""
        is_told = not said.strip() or self._tells(said, taken, text)
        if not is_told and self._leaves_out_last(taken, text):
            role = given.messages[-1]["role"]
            raise TemplateError(f"it leaves out the last message ({role})")
        return text

    def _tells(self, content: str, taken: Conversation, text: str) -> bool:
        """Whether the text alone shows that the last message, of this content, is in it."""
        *before, last = taken.messages
        earlier = [message["content"] or "" for message in before]
        said = content.strip()
        if len(said) >= TELLING_CHARS and not any(said in one for one in earlier):
            return said in text
        frame = self._frames.get(last["role"]) if taken.add_generation_prompt else None
        return frame is not None and frame.holds(text, content, earlier)

    def _leaves_out_last(self, taken: Conversation, text: str) -> bool:
        """Whether another content of the last message changes nothing in the text. Of a message
        with calls the calls are enough, and a template that refuses a content reads it."""
        if self._rendered_if_taken(_with_last(taken, NEEDLE)) != text:
            return False
        *before, last = taken.messages
        if not last.get("tool_calls"):
            return True
        return self._rendered_if_taken(structs.replace(taken, messages=before)) == text

    def _continued(self, taken: Conversation) -> str:
        """The text up to the end of the last message's content."""
        said = taken.messages[-1]["content"] or ""
        before, found, _ = self._rendered(_with_last(taken, said + NEEDLE)).rpartition(NEEDLE)
        if not found:
            raise TemplateError("it leaves out the last message, which is to be continued")
        return before

    def _rendered_if_taken(self, given: Conversation) -> str | None:
        try:
            return self._rendered(given)
        except TemplateError:
            return None

    def _try_user(self) -> None:
        """Render one user's word, as text and as parts."""
        said = _said("user")
        reasons = []
        conversations = ([said], [{"role": "system", "content": "Be brief."}, said])
        # some templates, made for tools only, go through `tools` without a question
        for self._no_tools, messages in product((None, []), conversations):
            for self.wants_parts in (frozenset(), frozenset(_ROLES)):
                try:
                    if NEEDLE in self._rendered(Conversation(messages)):
                        return
                except TemplateError as err:
                    reasons.append(str(err))
        raise TemplateError(reasons[0] if reasons else "it leaves out what the user says")

    def _try_other_roles(self) -> None:
        """Find out which of them want parts: some templates take one role's content as text and
        another's as parts. A role that is rendered in neither form is given what users are."""
        user = {"role": "user", "content": "Hello."}
        for messages in ([_said("system"), user], [user, _said("assistant"), user]):
            role = next(one["role"] for one in messages if one is not user)
            known = self.wants_parts
            for self.wants_parts in (known - {role}, known | {role}):
                text = self._rendered_if_taken(Conversation(messages))
                if text is not None and NEEDLE in text:
                    break
            else:
                self.wants_parts = known

    def _probed(self) -> Traits:
        """The traits, with results of tools as text or as parts."""
        known = self.wants_parts
        for self.wants_parts in (known - {"tool"}, known | {"tool"}):
            traits = probed(self._rendered_if_taken)
            if traits.calls is None or traits.tool_results:
                break
        return traits

    def _rendered(self, given: Conversation) -> str:
        parts: list[str] = []
        n_chars = 0
        try:
            for part in self._template.generate(
                {
                    **given.variables,
                    **self._special_tokens,
                    "messages": [self._given(message) for message in given.messages],
                    "add_generation_prompt": given.add_generation_prompt,
                    "tools": given.tools or self._no_tools,
                    "documents": None,
                }
            ):
                n_chars += len(part)
                if n_chars > MAX_RENDERED_CHARS:
                    raise TemplateError(f"its output has more than {MAX_RENDERED_CHARS} characters")
                parts.append(part)
        except TemplateError:
            raise
        except MemoryError as err:
            raise TemplateError("it needs too much memory") from err
        except Exception as err:  # a template can make any operation fail
            raise TemplateError(_first_line(err)) from err
        # half a surrogate pair, which a template can write, could not be encoded anywhere
        return "".join(parts).encode("utf-8", "replace").decode()

    def _given(self, message: Message) -> Message:
        """A message as the template wants it."""
        content = message.get("content")
        if message["role"] not in self.wants_parts or not isinstance(content, str):
            return message
        return {**message, "content": [{"type": "text", "text": content}]}


def _said(role: str) -> Message:
    return {"role": role, "content": NEEDLE}


def _with_last(given: Conversation, content: str) -> Conversation:
    """The conversation with another content of its last message."""
    messages = [*given.messages[:-1], {**given.messages[-1], "content": content}]
    return structs.replace(given, messages=messages)


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks training data; the inside is rendered as is."""

    tags = {"generation"}  # noqa: RUF012  (the base class declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTag]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers': unlike Jinja's own filter, without HTML escapes."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _first_line(err: BaseException) -> str:
    lines = str(err).splitlines()
    return (lines[0] if lines and lines[0] else type(err).__name__)[:MAX_REASON_CHARS]
