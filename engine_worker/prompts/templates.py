"""Which chat template a model is used with. A template itself needs jinja2, its source does not."""

from collections.abc import Callable
from pathlib import Path

from gpufc.errors import ModelLoadError

MAX_SOURCE_CHARS = 1 << 20

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For models that bring no template. Most models understand it."""

BUILT_IN = {"chatml": CHATML}


def chosen(wanted: str | None, own: str | None, named: Callable[[str], str | None]) -> str | None:
    """The template's source: of a file, of the model by name, or built in; the model's `own` if
    none is wanted. Raises `ModelLoadError` if there is no such template."""
    if wanted is None:
        return own
    path = Path(wanted)
    try:
        if path.is_file():
            # a byte order mark would stand before every prompt
            with path.open(encoding="utf-8-sig") as file:
                return file.read(MAX_SOURCE_CHARS + 1)
    except (OSError, UnicodeDecodeError) as err:
        raise ModelLoadError(f"chat_template {wanted} cannot be read: {err}") from None
    found = named(wanted) or BUILT_IN.get(wanted)
    if found is None:
        raise ModelLoadError(
            f"chat_template {wanted} is no file, no template that the model brings, and none of"
            f" {', '.join(sorted(BUILT_IN))}"
        )
    return found
