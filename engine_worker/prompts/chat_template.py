"""A model's chat template: conversation in, prompt text out.

Templates come with models and are untrusted. The sandbox keeps them from Python's insides. It does
not bound their time and memory: `template_process.py` runs this module in a process of its own.
The environment is that of Hugging Face's `apply_chat_template`, which templates are written for.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = dict[str, Any]
"""One turn, with the keys that templates know: role, content, name."""

MAX_SOURCE_CHARS = 1 << 20
MAX_RENDERED_CHARS = 16 << 20
MAX_REASON_CHARS = 500

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For models that bring no template. Most models understand it."""


_NEEDLE = "gpufc5f1e9"
"""A word that no template writes by itself."""


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
        self.wants_parts = self._tries()

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """The prompt's text.

        Raises `TemplateError` for what the template raises itself, unfit messages, an output over
        `MAX_RENDERED_CHARS`, and an output that does not depend on the last message's content.
        """
        text = self._rendered(messages, add_generation_prompt)
        said = messages[-1].get("content")
        if isinstance(said, str) and said.strip() and said.strip() not in text:
            other = [*messages[:-1], {**messages[-1], "content": _NEEDLE}]
            if self._rendered(other, add_generation_prompt) == text:
                raise TemplateError(f"it leaves out the last message ({messages[-1]['role']})")
        return text

    def _tries(self) -> bool:
        """Render one user's word, as text and as parts. Whether parts are wanted."""
        said = {"role": "user", "content": _NEEDLE}
        reasons = []
        for messages in ([said], [{"role": "system", "content": "Be brief."}, said]):
            for wants_parts in (False, True):
                self.wants_parts = wants_parts
                try:
                    if _NEEDLE in self._rendered(messages, True):
                        return wants_parts
                except TemplateError as err:
                    reasons.append(str(err))
        raise TemplateError(reasons[0] if reasons else "it leaves out what the user says")

    def _rendered(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        parts: list[str] = []
        n_chars = 0
        try:
            for part in self._template.generate(
                messages=[self._given(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self._special_tokens,
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
        if not self.wants_parts or not isinstance(content, str):
            return message
        return {**message, "content": [{"type": "text", "text": content}]}


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
