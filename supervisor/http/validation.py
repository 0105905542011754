"""From a body's fields to dispatch's: names, defaults, bounds that depend on configuration."""

from gpufc.config import LimitsConfig
from gpufc.errors import InvalidRequest
from gpufc.ids import new_seed
from gpufc.sampling import SamplingParams
from supervisor.http.schemas import INT64_MAX, GenerationFields
from supervisor.http.unsupported import refuse_unsupported

_SAME_NAME = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repeat_last_n",
    "frequency_penalty",
    "presence_penalty",
    "ignore_eos",
)


def choices(body: GenerationFields, limits: LimitsConfig) -> int:
    """`n`, within its limit. Refuses unsupported fields."""
    n = body.n or 1
    if n > limits.max_n:
        raise InvalidRequest(f"n is at most {limits.max_n}", param="n")
    refuse_unsupported(body, n)
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("stream_options needs stream: true", param="stream_options")
    return n


def max_tokens(body: GenerationFields, preferred: int | None, default: int | None) -> int | None:
    """The limit of generated tokens; None is up to the end of the context."""
    for value in (preferred, body.max_tokens, body.n_predict):
        if value is not None:
            return None if value < 0 else value
    return default


def sampling(body: GenerationFields, limits: LimitsConfig, n_vocab: int | None) -> SamplingParams:
    """The sampling parameters, with the seed fixed. `n_vocab` is None while it is unknown."""
    given = {name: value for name in _SAME_NAME if (value := getattr(body, name)) is not None}
    if body.top_k is not None:
        given["top_k"] = max(0, body.top_k)  # llama-server: any value below 1 is off
    if body.top_n_sigma is not None:
        given["top_n_sigma"] = max(0.0, body.top_n_sigma)  # llama-server: -1 is off
    return SamplingParams(
        seed=new_seed() if body.seed is None else body.seed & INT64_MAX,
        logit_bias=_logit_bias(body.logit_bias or {}, limits, n_vocab),
        **given,
    )


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


def _logit_bias(
    given: dict[str, float], limits: LimitsConfig, n_vocab: int | None
) -> tuple[tuple[int, float], ...]:
    if len(given) > limits.max_logit_bias:
        raise InvalidRequest(f"at most {limits.max_logit_bias} entries", param="logit_bias")
    return tuple((_token_id(key, n_vocab), bias) for key, bias in given.items())


def _token_id(text: str, n_vocab: int | None) -> int:
    # `int` would also take "+1", "1_0" and, slowly, a megabyte of digits
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        raise InvalidRequest(f"{text[:20]!r} is not a token id", param="logit_bias")
    token = int(text)
    if token >= (n_vocab or 2**31):
        raise InvalidRequest(f"token id {token} is not in the vocabulary", param="logit_bias")
    return token
