"""Figures as text and as JSON. Pure, except for `write`."""

from pathlib import Path
from typing import Any

import msgspec

from supervisor.bench.client import Target
from supervisor.bench.figures import Distribution, Figures
from supervisor.bench.outcome import Outcome
from supervisor.bench.runner import Bounds, Run
from supervisor.bench.workload import Workload

COLUMNS = ("mean", "p50", "p90", "p99", "max")


def lines(figures: Figures) -> list[str]:
    """A run as lines of text. A run without any success shows its errors only."""
    if not figures.succeeded:
        return [_success(figures), *_errors(figures)]
    rows = [
        ("time to first token", figures.time_to_first_token_s),
        ("between tokens", figures.inter_token_s),
        ("per output token", figures.per_output_token_s),
        ("whole request", figures.request_s),
    ]
    header = f"{'milliseconds':22}" + "".join(f"{name:>10}" for name in COLUMNS)
    return [
        *_counts(figures),
        "",
        header,
        *(_row(name, values) for name, values in rows),
        *_turns(figures),
    ]


def document(
    figures: Figures, target: Target, workload: Workload, bounds: Bounds, run: Run
) -> dict[str, Any]:
    """A run with its target, workload and bounds, as plain data. Leaves out the key."""
    server = {"url": target.url, "model": target.model, "api": target.api}
    plain: dict[str, Any] = msgspec.to_builtins(
        {
            "target": server,
            "workload": workload,
            "bounds": bounds,
            "figures": figures,
            "client_cpu_s": round(run.client_cpu_s, 3),
            "requests": [_request(o, run.outcomes[0].began_at) for o in run.outcomes],
        }
    )
    return plain


def write(path: Path, document: dict[str, Any]) -> None:
    """Write indented JSON. Raises `OSError`."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def _success(figures: Figures) -> str:
    return (
        f"{figures.succeeded} of {figures.requests} requests succeeded in {figures.elapsed_s:.1f} s"
        f" ({figures.requests_per_s:.2f}/s)"
    )


def _errors(figures: Figures) -> list[str]:
    return [f"{count} × {kind}" for kind, count in sorted(figures.errors.items())]


def _counts(figures: Figures) -> list[str]:
    cached = figures.cached_tokens / figures.prompt_tokens if figures.prompt_tokens else 0.0
    out = [
        _success(figures),
        f"{figures.output_tokens_per_s:.1f} output tokens/s,"
        f" {figures.total_tokens_per_s:.1f} tokens/s with prompts",
        f"{figures.prompt_tokens:,} prompt tokens, {cached:.0%} of them from the server's cache;"
        f" {figures.output_tokens:,} output tokens",
        *_errors(figures),
    ]
    if figures.short:
        out.append(f"{figures.short} brought another number of tokens than was asked for")
    return out


def _row(name: str, values: Distribution | None) -> str:
    if values is None:
        return f"{name:22}" + f"{'–':>10}" * len(COLUMNS)
    return f"{name:22}" + "".join(f"{getattr(values, c) * 1000:>10.1f}" for c in COLUMNS)


def _turns(figures: Figures) -> list[str]:
    if len(figures.turns) < 2:
        return []
    out = ["", f"{'turn':>4}{'prompt tokens':>16}{'cached':>10}{'first token p50':>18}{'p99':>10}"]
    for turn in figures.turns:
        first = turn.time_to_first_token_s
        times = f"{first.p50 * 1000:>18.1f}{first.p99 * 1000:>10.1f}" if first else ""
        out.append(
            f"{turn.turn + 1:>4}{turn.prompt_tokens:>16.0f}{turn.cached_tokens:>10.0f}{times}"
        )
    return out


def _request(outcome: Outcome, origin: float) -> dict[str, Any]:
    first = outcome.text_at[0] - outcome.began_at if outcome.text_at else None
    return {
        "conversation": outcome.conversation,
        "turn": outcome.turn,
        "began_s": round(outcome.began_at - origin, 6),
        "first_token_s": first,
        "request_s": outcome.ended_at - outcome.began_at,
        "prompt_tokens": outcome.prompt_tokens,
        "cached_tokens": outcome.cached_tokens,
        "output_tokens": outcome.output_tokens,
        "failure": outcome.failure,
        "detail": outcome.detail,
    }
