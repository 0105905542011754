"""Between a sequence's log and `Generate`, its message on the link, in both directions. Pure."""

from gpufc.ids import Epoch, RequestNo
from gpufc.protocol import Generate, TokenPrompt
from supervisor.dispatch.request import GenerationRequest, Reading
from supervisor.dispatch.stream_log import StreamLog
from supervisor.routing.port import Arrival


def to_generate(log: StreamLog, epoch: Epoch) -> Generate:
    """The message that starts a sequence on a worker, or continues it from its logged tokens.

    Raises `ValueError` for a log without a prepared prompt.
    """
    request = log.request
    if log.prompt_tokens is None:
        raise ValueError("a sequence cannot start before its prompt is prepared")
    reading = log.reading
    return Generate(
        epoch,
        log.no,
        request.id,
        log.choice,
        log.prompt_tokens,
        request.sampling,
        max_tokens=request.max_tokens,
        stop=request.stop,
        tokens=tuple(log.tokens),
        replay=request.replay,
        cache_prompt=request.cache_prompt,
        scope=log.scope,
        spelt=reading.spelt,
        constraint=reading.constraint or request.constraint,
        adapters=request.adapters,
        logprobs=request.logprobs,
        rules=request.rules,
        sampler_state=log.sampler_state,
        prediction=request.prediction,
        batching=log.batching,
        yields=log.yields,
    )


def to_arrival(log: StreamLog) -> Arrival:
    """The sequence as the routing sees it. Its prompt has been prepared."""
    request = log.request
    shared_by = (log.scope, request.adapters) if request.cache_prompt else None
    return Arrival(log.prompt_tokens or (), len(log.tokens), shared_by)


def from_generate(no: RequestNo, model: str, created: int, message: Generate) -> StreamLog:
    """The log of a sequence that another front began, with its tokens. That front has sent their
    text, so the log has none. The request in the log has this one sequence."""
    reading = Reading(spelt=message.spelt)
    request = GenerationRequest(
        id=message.request_id,
        model=model,
        prompts=(TokenPrompt(message.prompt_tokens),),
        sampling=message.sampling,
        created=created,
        max_tokens=message.max_tokens,
        stop=message.stop,
        cache_prompt=message.cache_prompt,
        replay=message.replay,
        reading=lambda _opening: reading,
        constraint=message.constraint,
        adapters=message.adapters,
        logprobs=message.logprobs,
        rules=message.rules,
        prediction=message.prediction,
    )
    log = StreamLog(no, request, scope=message.scope)
    log.choice = message.choice
    log.prompt_tokens = message.prompt_tokens
    log.tokens.extend(message.tokens)
    log.sampler_state = message.sampler_state
    log.batching = message.batching
    log.yields = message.yields
    log.n_cached = 0
    return log
