"""Sequences for tests: real ones, with tokens that are easy to read."""

from engine_worker.constraints.guide import Guide
from engine_worker.sampling.sampler import Sampler
from engine_worker.scheduling.policies import MAX_JUMP
from engine_worker.text.sequence import Sequence
from gpufc.adapters import Adapters
from gpufc.config import Replay
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Generate
from gpufc.sampling import SamplingParams
from tests.engine_worker.constraints.matchers import TOKENIZER, matcher

N_VOCAB = 300
END = frozenset({299})


def spec(
    request: int = 1,
    prompt: tuple[int, ...] | int = 4,
    *,
    tokens: tuple[int, ...] = (),
    max_tokens: int | None = None,
    stop: tuple[str, ...] = (),
    replay: Replay = Replay.FAST,
    cache_prompt: bool = True,
    scope: str = "",
    temperature: float = 0.0,
    adapters: Adapters = (),
) -> Generate:
    """A request. A prompt given as a number has that many tokens, different for each `request`."""
    if isinstance(prompt, int):
        prompt = tuple(97 + (request * 7 + at) % 26 for at in range(prompt))
    return Generate(
        Epoch(1),
        RequestNo(request),
        RequestId(f"r{request}"),
        choice=0,
        prompt_tokens=prompt,
        sampling=SamplingParams(seed=request, temperature=temperature),
        max_tokens=max_tokens,
        stop=stop,
        tokens=tokens,
        replay=replay,
        cache_prompt=cache_prompt,
        scope=scope,
        adapters=adapters,
    )


def sequence(request: Generate, n_ctx: int = 1000, *, regex: str = "") -> Sequence:
    """The sequence of a request, with a vocabulary of bytes. Its answer matches the `regex`, if one
    is given, and forced tokens are computed together."""
    constraint = Constraint(ConstraintKind.REGEX, regex)
    return Sequence(
        request,
        sampler=Sampler(request.sampling, N_VOCAB, END),
        piece=lambda token: bytes([token]),
        is_end=END.__contains__,
        n_ctx=n_ctx,
        guide=Guide(matcher(constraint), TOKENIZER.n_words) if regex else None,
        max_jump=MAX_JUMP,
    )
