"""Known fields that would change the answer and are not built yet.

They are OpenAI's, llama-server's, vLLM's and Ollama's, and some of other servers. Such a field may
be absent, null, or one of its neutral values, which ask for the default. Any other value is a 400
that names the field. No known field is silently ignored. A route's body lists the ones that it
serves in `SERVED`, and defines them anew with their types.
"""

from typing import Any, ClassVar

from gpufc.errors import InvalidRequest
from gpufc.sampling import SamplingFields


class NotYet(SamplingFields, kw_only=True):
    """The fields. Their values are not checked further, so any type will do."""

    SERVED: ClassVar[frozenset[str]] = frozenset()

    # OpenAI
    audio: Any = None
    best_of: Any = None
    echo: Any = None
    function_call: Any = None
    functions: Any = None
    modalities: Any = None
    suffix: Any = None
    web_search_options: Any = None
    # llama-server
    adaptive_target: Any = None
    chat_template: Any = None
    generation_prompt: Any = None
    grammar_lazy: Any = None
    grammar_triggers: Any = None
    image_data: Any = None
    input_extra: Any = None
    n_cmpl: Any = None
    n_indent: Any = None
    parse_tool_calls: Any = None
    preserved_tokens: Any = None
    reasoning_budget: Any = None
    reasoning_format: Any = None
    reasoning_in_content: Any = None
    response_fields: Any = None
    return_tokens: Any = None
    t_max_predict_ms: Any = None
    thinking_budget_tokens: Any = None
    thinking_forced_open: Any = None
    # llama-cpp-python
    logit_bias_type: Any = None
    mirostat_mode: Any = None
    # vLLM
    add_special_tokens: Any = None
    bad_words: Any = None
    documents: Any = None
    enable_thinking: Any = None
    guided_whitespace_pattern: Any = None
    include_reasoning: Any = None
    length_penalty: Any = None
    logits_processors: Any = None
    prompt_embeds: Any = None
    prompt_logprobs: Any = None
    repetition_detection: Any = None
    return_token_ids: Any = None
    return_tokens_as_token_ids: Any = None
    skip_special_tokens: Any = None
    spaces_between_special_tokens: Any = None
    structural_tag: Any = None
    thinking_token_budget: Any = None
    truncate_prompt_tokens: Any = None
    use_beam_search: Any = None
    vllm_xargs: Any = None
    # SGLang
    min_new_tokens: Any = None
    no_stop_trim: Any = None
    separate_reasoning: Any = None
    stop_regex: Any = None
    # Ollama
    context: Any = None
    format: Any = None
    images: Any = None
    num_predict: Any = None
    options: Any = None
    raw: Any = None
    system: Any = None
    template: Any = None
    think: Any = None
    # samplers of others
    eta_cutoff: Any = None
    epsilon_cutoff: Any = None
    guidance_scale: Any = None
    no_repeat_ngram_size: Any = None
    penalty_alpha: Any = None
    smoothing_factor: Any = None
    tfs_z: Any = None
    top_a: Any = None


_OFF = (0,)
_NO = (False,)
_YES = (True,)
_EMPTY: tuple[object, ...] = ([],)
_NO_TEXT = ("",)

NEUTRAL: dict[str, tuple[object, ...]] = {
    "adaptive_target": (-1,),
    "add_special_tokens": _YES,
    "bad_words": _EMPTY,
    "context": _EMPTY,
    "documents": _EMPTY,
    "echo": _NO,
    "enable_thinking": _YES,
    "epsilon_cutoff": _OFF,
    "eta_cutoff": _OFF,
    "format": _NO_TEXT,
    "function_call": ("none",),
    "functions": _EMPTY,
    "generation_prompt": _NO_TEXT,
    "grammar_lazy": _NO,
    "grammar_triggers": _EMPTY,
    "guidance_scale": (1,),
    "image_data": _EMPTY,
    "images": _EMPTY,
    "include_reasoning": _YES,
    "input_extra": _EMPTY,
    "length_penalty": (1,),
    "logit_bias_type": ("input_ids",),
    "logits_processors": _EMPTY,
    "min_new_tokens": _OFF,
    "mirostat_mode": _OFF,
    "modalities": (["text"],),
    "n_cmpl": (1,),
    "n_indent": _OFF,
    "no_repeat_ngram_size": _OFF,
    "no_stop_trim": _NO,
    "options": ({},),
    "parse_tool_calls": _YES,
    "penalty_alpha": _OFF,
    "preserved_tokens": _EMPTY,
    "raw": _NO,
    "reasoning_budget": (-1,),
    "reasoning_format": ("auto", "deepseek"),
    "reasoning_in_content": _NO,
    "response_fields": _EMPTY,
    "return_token_ids": _NO,
    "return_tokens": _NO,
    "return_tokens_as_token_ids": _NO,
    "separate_reasoning": _YES,
    "skip_special_tokens": _YES,
    "smoothing_factor": _OFF,
    "spaces_between_special_tokens": _YES,
    "suffix": _NO_TEXT,
    "system": _NO_TEXT,
    "t_max_predict_ms": _OFF,
    "template": _NO_TEXT,
    "tfs_z": (1,),
    "think": _YES,
    "thinking_budget_tokens": (-1,),
    "thinking_forced_open": _NO,
    "top_a": _OFF,
    "use_beam_search": _NO,
    "vllm_xargs": ({},),
}
"""Values that ask for the default."""

FIELDS = NotYet.__struct_fields__[len(SamplingFields.__struct_fields__) :]


def refuse_unsupported(body: NotYet, n: int) -> None:
    """Raises `InvalidRequest` for the first field that asks for something. `n` is the number of
    choices."""
    for name in FIELDS:
        value = getattr(body, name)
        if value is None:  # nearly every field of nearly every request
            continue
        if name in body.SERVED or (name == "best_of" and _same(value, n)):
            continue
        if not is_neutral(name, value):
            raise InvalidRequest(f"{name} is not supported yet", param=name)


def is_neutral(name: str, value: object) -> bool:
    """Whether a field with this value asks for nothing."""
    return value is None or any(_same(value, allowed) for allowed in NEUTRAL.get(name, ()))


def _same(value: object, allowed: object) -> bool:
    # in Python 0 == False, but `prompt_logprobs: 0` asks for log probabilities
    return isinstance(value, bool) == isinstance(allowed, bool) and value == allowed
