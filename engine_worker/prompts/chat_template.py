"""A model's chat template: conversation in, prompt text out.

Templates come with models and are untrusted. The sandbox keeps them from Python's insides; it
does not keep them from running for ever or from filling the memory, which is why
`template_process.py` runs this module in a process of its own. Behaves as Hugging Face's
`apply_chat_template`, which templates are written for.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gpufc.errors import InvalidRequest
from gpufc.protocol import ChatMessage

MAX_SOURCE_CHARS = 1 << 20
MAX_RENDERED_CHARS = 16 << 20
MAX_REASON_CHARS = 500

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For models that bring no template: what most of them understand."""


class ChatTemplate:
    """A compiled template with the model's BOS and EOS spellings. Immutable.

    Raises `InvalidRequest` (param `messages`) when the source is too long or no valid Jinja: the
    model can still complete plain text, so this is no reason not to serve it.
    """

    def __init__(self, source: str | None, bos_text: str, eos_text: str) -> None:
        source = source or CHATML
        if len(source) > MAX_SOURCE_CHARS:
            raise _refused(f"it has {len(source)} characters, more than {MAX_SOURCE_CHARS}")
        try:
            self._template = _environment().from_string(source)
        except (jinja2.TemplateError, RecursionError, ValueError) as err:
            raise _refused(_first_line(err)) from err
        self._texts = {"bos_token": bos_text, "eos_token": eos_text}

    def render(self, messages: Sequence[ChatMessage], *, add_generation_prompt: bool) -> str:
        """The prompt's text. Raises `InvalidRequest` (param `messages`) for whatever goes wrong:
        what the template raises itself, unfit messages, an output over `MAX_RENDERED_CHARS`."""
        parts: list[str] = []
        n_chars = 0
        try:
            for part in self._template.generate(
                messages=[_plain(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                **self._texts,
            ):
                n_chars += len(part)
                if n_chars > MAX_RENDERED_CHARS:
                    raise _refused(f"its output has more than {MAX_RENDERED_CHARS} characters")
                parts.append(part)
        except InvalidRequest:
            raise
        except MemoryError as err:
            raise _refused("it needs too much memory") from err
        except Exception as err:  # a template can make any operation fail
            raise _refused(_first_line(err)) from err
        # half a surrogate pair, which a template can write, could not be encoded anywhere
        return "".join(parts).encode("utf-8", "replace").decode()


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


def _plain(message: ChatMessage) -> dict[str, str]:
    plain = {"role": message.role, "content": message.content}
    return plain if message.name is None else {**plain, "name": message.name}


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


def _first_line(err: Exception) -> str:
    lines = str(err).splitlines()
    return lines[0] if lines and lines[0] else type(err).__name__


def _refused(reason: str) -> InvalidRequest:
    return InvalidRequest(
        f"the model's chat template: {reason[:MAX_REASON_CHARS]}", param="messages"
    )
