"""From a body's fields to dispatch's: names, defaults, bounds that depend on configuration."""

from collections.abc import Mapping, Sequence

from gpufc.config import LimitsConfig
from gpufc.errors import InvalidRequest
from gpufc.ids import new_seed
from gpufc.protocol import TokenRules
from gpufc.sampling import SamplingFields, SamplingParams, WrongValue
from supervisor.http.generation.fields import INT64_MAX, GenerationFields
from supervisor.http.generation.unsupported import refuse_unsupported

MOST_TOKENS = 2**31 - 1
"""More than any context has."""
BANNED = -100.0
"""The bias of a token that cannot come."""
MAX_BIASED_CHARS = 256


def choices(body: GenerationFields, limits: LimitsConfig) -> int:
    """`n`, within its limit. Refuses unsupported fields."""
    n = body.n or 1
    if n > limits.max_n:
        raise InvalidRequest(f"n is at most {limits.max_n}", param="n")
    refuse_unsupported(body, n)
    options = body.stream_options
    if options is not None and not body.stream:
        raise InvalidRequest("stream_options needs stream: true", param="stream_options")
    if options is not None and options.continuous_usage_stats:
        place = "stream_options.continuous_usage_stats"
        raise InvalidRequest(f"{place} is not supported yet", param=place)
    return n


def max_tokens(body: GenerationFields, preferred: int | None, default: int | None) -> int | None:
    """The limit of generated tokens; None is up to the end of the context."""
    for value in (preferred, body.max_tokens, body.n_predict):
        if value is not None:
            return None if value < 0 else min(value, MOST_TOKENS)
    return default


def sampling(
    body: GenerationFields, defaults: SamplingFields, biases: dict[int, float]
) -> SamplingParams:
    """The sampling parameters, with the seed fixed: the request's, else the model's `defaults`,
    else llama.cpp's. `biases` are those of `bias_of_tokens`."""
    given = [body, defaults]
    if body.repetition_penalty is not None:
        given.insert(1, SamplingFields(repeat_penalty=body.repetition_penalty))
    # -1 is llama-server's word for a random seed
    is_random = body.seed is None or body.seed == -1
    seed = new_seed() if is_random or body.seed is None else body.seed & INT64_MAX
    try:
        return SamplingParams.of(seed, given, logit_bias=tuple(biases.items()))
    except WrongValue as err:
        raise InvalidRequest(str(err), param=err.field) from None


def stop_strings(stop: str | list[str] | None, limits: LimitsConfig) -> tuple[str, ...]:
    """The stop strings without the empty ones, which would match everywhere."""
    given = [stop] if isinstance(stop, str) else stop or []
    if len(given) > limits.max_stop:
        raise InvalidRequest(f"at most {limits.max_stop} stop strings", param="stop")
    if any(len(text.encode()) > limits.max_stop_bytes for text in given):
        raise InvalidRequest(
            f"a stop string has at most {limits.max_stop_bytes} bytes", param="stop"
        )
    return tuple(text for text in given if text)


def rules(body: GenerationFields, max_tokens: int | None) -> TokenRules:
    """vLLM's rules for tokens. Raises `InvalidRequest`."""
    least = body.min_tokens or 0
    if max_tokens is not None and least > max_tokens:
        raise InvalidRequest(f"min_tokens is at most max_tokens, {max_tokens}", param="min_tokens")
    if body.allowed_token_ids == []:
        raise InvalidRequest("at least one token must be allowed", param="allowed_token_ids")
    return TokenRules(
        tuple(body.stop_token_ids or ()),
        tuple(body.allowed_token_ids or ()),
        least,
        bool(body.include_stop_str_in_output),
    )


def biases(body: GenerationFields, limits: LimitsConfig) -> dict[int | str, float]:
    """`logit_bias` by token id or by text. A text of digits is an id."""
    given = body.logit_bias or {}
    if len(given) > limits.max_logit_bias:
        raise _too_many_biases(limits)
    found: dict[int | str, float] = {}
    for key, bias in given.items() if isinstance(given, dict) else given:
        if bias is not True:
            found[_token_or_text(key)] = BANNED if bias is False else bias
    return found


def bias_of_tokens(
    given: dict[int | str, float],
    tokens: Mapping[str, Sequence[int]],
    limits: LimitsConfig,
    n_vocab: int | None,
) -> dict[int, float]:
    """The bias of each token: that of its id, or of a text that it is a part of.

    `tokens` holds those of each text. `n_vocab` is None while it is unknown.
    """
    found: dict[int, float] = {}
    for key, bias in given.items():
        found.update(dict.fromkeys((key,) if isinstance(key, int) else tokens[key], bias))
    if len(found) > limits.max_logit_bias:
        raise _too_many_biases(limits)
    for token in found:
        if not 0 <= token < (n_vocab or 2**31):
            raise InvalidRequest(f"token id {token} is not in the vocabulary", param="logit_bias")
    return found


def _token_or_text(key: int | str) -> int | str:
    # `int` would also take "+1", "1_0" and, slowly, a megabyte of digits
    if isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) <= 10:
        return int(key)
    if isinstance(key, str) and not 0 < len(key) <= MAX_BIASED_CHARS:
        raise InvalidRequest(
            f"a text in logit_bias has 1 to {MAX_BIASED_CHARS} characters", param="logit_bias"
        )
    return key


def _too_many_biases(limits: LimitsConfig) -> InvalidRequest:
    return InvalidRequest(f"at most {limits.max_logit_bias} entries", param="logit_bias")
