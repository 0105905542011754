"""Turns outcomes into figures. Pure.

Percentiles interpolate linearly between the two nearest values, as numpy's default does.
Inter-token latency is the time between two chunks with text of one stream, over all streams. Time
per output token is (last - first) / (tokens - 1) of one request. AIPerf calls them inter-chunk
latency and inter-token latency. Rates count from the first request's begin to the last request's
end.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from msgspec import Struct

from supervisor.bench.outcome import Outcome

MOST_SAID = 3


class Distribution(Struct, frozen=True):
    """Statistics of times in seconds."""

    n: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float


class TurnFigures(Struct, frozen=True, kw_only=True):
    """Figures of one turn, over all conversations."""

    turn: int
    n: int
    prompt_tokens: float
    cached_tokens: float
    time_to_first_token_s: Distribution | None


class Figures(Struct, frozen=True, kw_only=True):
    """Figures of a run. A distribution without values is None.

    `short` counts successful requests with another number of tokens than requested.
    """

    requests: int
    succeeded: int
    short: int
    errors: dict[str, int]
    elapsed_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    output_tokens_per_s: float
    total_tokens_per_s: float
    requests_per_s: float
    time_to_first_token_s: Distribution | None
    inter_token_s: Distribution | None
    per_output_token_s: Distribution | None
    request_s: Distribution | None
    turns: list[TurnFigures]
    said: list[str]
    """Distinct messages of the first failed requests."""


def percentile(ordered: Sequence[float], percent: float) -> float:
    """A percentile of values in ascending order. Raises `IndexError` for no values."""
    rank = (len(ordered) - 1) * percent / 100
    below = int(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


def distribution(values: Iterable[float]) -> Distribution | None:
    """A distribution; None for no values."""
    ordered = sorted(values)
    if not ordered:
        return None
    return Distribution(
        n=len(ordered),
        mean=sum(ordered) / len(ordered),
        p50=percentile(ordered, 50),
        p90=percentile(ordered, 90),
        p99=percentile(ordered, 99),
        max=ordered[-1],
    )


def gaps(outcome: Outcome) -> list[float]:
    """Seconds between chunks with text."""
    return [later - earlier for earlier, later in pairwise(outcome.text_at)]


def times_to_first_token(outcomes: Iterable[Outcome]) -> list[float]:
    """Seconds to the first text, of requests that had text."""
    return [outcome.text_at[0] - outcome.began_at for outcome in outcomes if outcome.text_at]


def figures(outcomes: Sequence[Outcome]) -> Figures:
    """Figures of a run. Failed requests count as errors only, not in latencies."""
    good = [outcome for outcome in outcomes if outcome.failure is None]
    elapsed_s = _elapsed_s(outcomes)
    prompt = sum(outcome.prompt_tokens for outcome in good)
    output = sum(outcome.output_tokens for outcome in good)
    return Figures(
        requests=len(outcomes),
        succeeded=len(good),
        short=sum(outcome.output_tokens != outcome.asked_tokens for outcome in good),
        errors=dict(Counter(str(o.failure) for o in outcomes if o.failure is not None)),
        elapsed_s=elapsed_s,
        prompt_tokens=prompt,
        cached_tokens=sum(outcome.cached_tokens for outcome in good),
        output_tokens=output,
        output_tokens_per_s=_rate(output, elapsed_s),
        total_tokens_per_s=_rate(prompt + output, elapsed_s),
        requests_per_s=_rate(len(good), elapsed_s),
        time_to_first_token_s=distribution(times_to_first_token(good)),
        inter_token_s=distribution(gap for outcome in good for gap in gaps(outcome)),
        per_output_token_s=distribution(_per_output_token(good)),
        request_s=distribution(outcome.ended_at - outcome.began_at for outcome in good),
        turns=_turns(good),
        said=_said(outcomes),
    )


def _said(outcomes: Sequence[Outcome]) -> list[str]:
    said = (f"{o.failure}: {o.detail}" for o in outcomes if o.failure is not None)
    return list(dict.fromkeys(said))[:MOST_SAID]


def _elapsed_s(outcomes: Sequence[Outcome]) -> float:
    if not outcomes:
        return 0.0
    return max(o.ended_at for o in outcomes) - min(o.began_at for o in outcomes)


def _rate(count: int, elapsed_s: float) -> float:
    return count / elapsed_s if elapsed_s > 0 else 0.0


def _per_output_token(outcomes: Iterable[Outcome]) -> list[float]:
    return [
        (outcome.text_at[-1] - outcome.text_at[0]) / (outcome.output_tokens - 1)
        for outcome in outcomes
        if outcome.text_at and outcome.output_tokens > 1
    ]


def _turns(outcomes: Iterable[Outcome]) -> list[TurnFigures]:
    by_turn: dict[int, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_turn[outcome.turn].append(outcome)
    return [
        TurnFigures(
            turn=turn,
            n=len(group),
            prompt_tokens=sum(o.prompt_tokens for o in group) / len(group),
            cached_tokens=sum(o.cached_tokens for o in group) / len(group),
            time_to_first_token_s=distribution(times_to_first_token(group)),
        )
        for turn, group in sorted(by_turn.items())
    ]
