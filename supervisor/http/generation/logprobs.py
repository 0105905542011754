"""Which log probabilities a request's fields ask for. Pure."""

from gpufc.config import LimitsConfig
from gpufc.errors import InvalidRequest
from gpufc.protocol import LogprobsWanted
from supervisor.http.generation.fields import GenerationFields


def chat_logprobs(body: GenerationFields, limits: LimitsConfig) -> LogprobsWanted | None:
    """OpenAI's fields for chats, or llama-server's `n_probs`. Raises `InvalidRequest`."""
    if not isinstance(body.logprobs, bool | None):
        raise InvalidRequest("logprobs is true or false", param="logprobs")
    if body.logprobs:
        return _wanted(body, body.top_logprobs or 0, "top_logprobs", limits)
    if body.top_logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true", param="top_logprobs")
    return probabilities(body, limits)


def completion_logprobs(body: GenerationFields, limits: LimitsConfig) -> LogprobsWanted | None:
    """OpenAI's number for completions, or llama-server's `n_probs`. Raises `InvalidRequest`."""
    if body.logprobs is True:
        raise InvalidRequest("logprobs is a number", param="logprobs")
    if body.top_logprobs:
        raise InvalidRequest("top_logprobs is a field of chats", param="top_logprobs")
    if body.logprobs is None or body.logprobs is False:
        return probabilities(body, limits)
    return _wanted(body, body.logprobs, "logprobs", limits)


def probabilities(body: GenerationFields, limits: LimitsConfig) -> LogprobsWanted | None:
    """llama-server's `n_probs`, of which 0 asks for nothing. Raises `InvalidRequest`."""
    return _wanted(body, body.n_probs, "n_probs", limits) if body.n_probs else None


def _wanted(body: GenerationFields, n_top: int, param: str, limits: LimitsConfig) -> LogprobsWanted:
    if n_top > limits.max_top_logprobs:
        raise InvalidRequest(f"{param} is at most {limits.max_top_logprobs}", param=param)
    return LogprobsWanted(n_top, bool(body.post_sampling_probs))
