"""Known fields that would change the answer and are not built yet.

Such a field may be absent, null, or one of its neutral values, which ask for the default. Any other
value is a 400 that names the field. No known field is silently ignored.
"""

from typing import Any

import msgspec
from msgspec import Struct

from gpufc.errors import InvalidRequest


class NotYet(Struct, kw_only=True):
    """The fields. Their values are not checked further, so any type will do."""

    # OpenAI
    audio: Any = None
    best_of: Any = None
    echo: Any = None
    function_call: Any = None
    functions: Any = None
    logprobs: Any = None
    modalities: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    response_format: Any = None
    suffix: Any = None
    tool_choice: Any = None
    tools: Any = None
    top_logprobs: Any = None
    verbosity: Any = None
    web_search_options: Any = None
    # llama-server
    add_generation_prompt: Any = None
    chat_template: Any = None
    chat_template_kwargs: Any = None
    dry_multiplier: Any = None
    dynatemp_range: Any = None
    grammar: Any = None
    json_schema: Any = None
    lora: Any = None
    min_keep: Any = None
    mirostat: Any = None
    n_indent: Any = None
    n_probs: Any = None
    samplers: Any = None
    t_max_predict_ms: Any = None
    xtc_probability: Any = None
    # vLLM
    continue_final_message: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    min_tokens: Any = None
    structured_outputs: Any = None
    use_beam_search: Any = None


NEUTRAL: dict[str, tuple[object, ...]] = {
    "add_generation_prompt": (True,),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "dry_multiplier": (0,),
    "dynatemp_range": (0,),
    "echo": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "grammar": ("",),
    "logprobs": (False,),
    "lora": ([],),
    "min_keep": (0,),
    "min_tokens": (0,),
    "mirostat": (0,),
    "modalities": (["text"],),
    "n_indent": (0,),
    "n_probs": (0,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "t_max_predict_ms": (0,),
    "tool_choice": ("none",),
    "tools": ([],),
    "top_logprobs": (0,),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "xtc_probability": (0,),
}
"""Values that ask for the default."""

FIELDS = tuple(field.name for field in msgspec.structs.fields(NotYet))


def refuse_unsupported(body: NotYet, n: int) -> None:
    """Raises `InvalidRequest` for the first field that asks for something."""
    for name in FIELDS:
        value = getattr(body, name)
        if value is None:
            continue
        neutral = (n,) if name == "best_of" else NEUTRAL.get(name, ())
        if not any(_same(value, allowed) for allowed in neutral):
            raise InvalidRequest(f"{name} is not supported yet", param=name)


def _same(value: object, allowed: object) -> bool:
    # in Python 0 == False, but `logprobs: 0` asks for logprobs
    return isinstance(value, bool) == isinstance(allowed, bool) and value == allowed
