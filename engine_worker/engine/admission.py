"""From a request to a sequence, with the checks that keep the backend from harm. Pure."""

from collections.abc import Callable
from functools import lru_cache, partial

from msgspec import structs

from engine_worker.backend.port import Backend, SpecialToken
from engine_worker.constraints.guide import Guide
from engine_worker.prompts.embedding_inputs import require_generation
from engine_worker.prompts.special_tokens import SpecialTokenFinder
from engine_worker.sampling.rule_mask import RuleMask
from engine_worker.sampling.sampler import Sampler
from engine_worker.sampling.samplers.port import TailsOf
from engine_worker.text.sequence import Sequence
from engine_worker.text.stop_matcher import SpecialSplit
from gpufc.errors import ContextLengthExceeded, InvalidRequest
from gpufc.facts import ModelFacts
from gpufc.protocol import Generate

MAX_PROMPT_LOGPROBS = 131_072
"""Log probabilities of one prompt, those of the best tokens in each place included. They travel in
one message, and the front writes them at once."""


def sequence_of(
    spec: Generate,
    backend: Backend,
    guide: Guide | None = None,
    *,
    max_jump: int = 0,
    max_prompt_rows: int = 1,
    tails: TailsOf | None = None,
) -> Sequence:
    """The sequence of a request. `tails` looks up the breakers of DRY.

    The front has checked the request already; these checks keep a defect there from ending this
    process. Raises `RequestError`.
    """
    facts = backend.facts
    _require_possible(spec, facts)
    return Sequence(
        _apart(_fitting(spec, facts.n_vocab)),
        sampler=Sampler(
            spec.sampling,
            facts.n_vocab,
            backend.end_tokens,
            tails=tails,
            state=spec.sampler_state,
        ),
        piece=_piece(spec, backend),
        is_end=backend.is_end,
        n_ctx=facts.n_ctx,
        split=_control_split(backend.special_tokens().tokens) if spec.stop else None,
        guide=guide,
        max_jump=max_jump,
        max_prompt_rows=max_prompt_rows,
        rule_mask=RuleMask.of(spec.rules, facts.n_vocab, backend.end_tokens),
    )


def _require_possible(spec: Generate, facts: ModelFacts) -> None:
    require_generation(facts)
    known = len(spec.prompt_tokens) + len(spec.tokens)
    if known > facts.n_ctx:
        raise ContextLengthExceeded(
            f"{known} tokens do not fit into the context of {facts.n_ctx}", param="prompt"
        )
    tokens = (*spec.prompt_tokens, *spec.tokens)
    if min(tokens) < 0 or max(tokens) >= facts.n_vocab:
        raise InvalidRequest("a token id is outside the model's vocabulary", param="prompt")
    if any(not 0 <= token < facts.n_vocab for token, _ in spec.sampling.logit_bias):
        raise InvalidRequest("a token id is outside the vocabulary", param="logit_bias")
    for param, ids in (
        ("stop_token_ids", spec.rules.stop),
        ("allowed_token_ids", spec.rules.allowed),
    ):
        if any(not 0 <= token < facts.n_vocab for token in ids):
            raise InvalidRequest("a token id is outside the vocabulary", param=param)
    if spec.logprobs is not None and spec.logprobs.n_top >= facts.n_vocab:
        raise InvalidRequest("the vocabulary has fewer tokens", param="top_logprobs")
    if spec.logprobs is not None and spec.logprobs.prompt:
        _require_scorable(len(spec.prompt_tokens), spec.logprobs.n_top)
    unknown = next((use.name for use in spec.adapters if use.name not in facts.adapters), None)
    if unknown is not None:
        raise InvalidRequest(f"there is no adapter {unknown!r}", param="lora")


def _require_scorable(n_tokens: int, n_top: int) -> None:
    if n_tokens * (1 + n_top) > MAX_PROMPT_LOGPROBS:
        raise InvalidRequest(
            f"with {n_top} log probabilities for each token, a prompt that is scored has at most"
            f" {MAX_PROMPT_LOGPROBS // (1 + n_top)} tokens",
            param="logprobs",
        )


def _fitting(spec: Generate, n_vocab: int) -> Generate:
    """The request without a prediction that another model's tokenizer has made."""
    if not spec.prediction or (min(spec.prediction) >= 0 and max(spec.prediction) < n_vocab):
        return spec
    return structs.replace(spec, prediction=())


def _apart(spec: Generate) -> Generate:
    """The request with its adapters in its scope: cells computed with them suit no other ones."""
    if not spec.adapters:
        return spec
    return structs.replace(spec, scope=f"{spec.scope}\0{spec.adapters!r}")


def _piece(spec: Generate, backend: Backend) -> Callable[[int], bytes]:
    """A token's bytes in this sequence's answer."""
    if not spec.spelt:
        return backend.piece
    wanted = frozenset(spec.spelt)
    spelt = {
        token.id: backend.spelling(token.id)
        for token in backend.special_tokens().tokens
        if token.text in wanted and not backend.is_end(token.id)
    }
    piece = backend.piece
    return lambda token: spelt.get(token) or piece(token)


@lru_cache(maxsize=1)
def _control_split(tokens: tuple[SpecialToken, ...]) -> SpecialSplit:
    """Finds the tokens in stop strings that have no text in an answer."""
    finder = SpecialTokenFinder(token for token in tokens if token.is_control)
    return partial(finder.split, control=True)
