"""The guided scenarios: the speed of answers that a schema binds, beside free answers.

One server gives all kinds of answers in turn, the free ones first and last. So each kind's rate is
compared with that of free answers in the same run.
"""

from typing import Any

from msgspec import structs

from supervisor.bench import runner
from supervisor.bench.client import Target
from supervisor.bench.figures import Figures, figures
from supervisor.bench.outcome import Outcome
from supervisor.bench.runner import Bounds
from supervisor.bench.workload import Workload

FREE = "free"


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _text(most: int) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": most}


def _number(most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": 0, "maximum": most}


OBJECT = _object(
    first_name=_text(10),
    family_name=_text(10),
    age=_number(120),
    occupation=_text(12),
    is_married={"type": "boolean"},
    number_of_children=_number(9),
    country_of_birth={"type": "string", "enum": ["Chile", "Ghana", "India", "Norway"]},
    favourite_colours={"type": "array", "items": _text(8), "minItems": 2, "maxItems": 2},
)
"""Eight keys."""

ENUM = {
    "type": "array",
    "items": {"type": "string", "enum": [f"category-{number:03}" for number in range(100)]},
    "minItems": 12,
    "maxItems": 12,
}

PATTERN = {"type": "string", "pattern": "^[A-Z][a-z]{3,9}( [a-z]{2,9}){60,70}$"}

RECURSIVE: dict[str, Any] = {
    "$ref": "#/$defs/folder",
    "$defs": {
        "folder": _object(
            name=_text(8),
            folders={"type": "array", "items": {"$ref": "#/$defs/folder"}, "maxItems": 2},
        )
    },
}

SCHEMAS: dict[str, Any] = {
    "object": OBJECT,
    "enum": ENUM,
    "regex": PATTERN,
    "recursive": RECURSIVE,
}
SHOWS = (
    "free_per_s",
    *(f"{kind}_{figure}" for kind in SCHEMAS for figure in ("per_s", "of_free_share")),
)


async def guide(
    target: Target, workload: Workload, bounds: Bounds, _n_ctx: int
) -> tuple[dict[str, float], Figures]:
    """Tokens per second of each kind, and the share of it that free answers have."""
    outcomes: dict[str, list[Outcome]] = {FREE: []}
    for kind in (FREE, *SCHEMAS, FREE):
        asked = structs.replace(
            workload,
            seed=workload.seed + 1000 * len(outcomes),
            fields={"json_schema": SCHEMAS[kind], "ignore_eos": False} if kind != FREE else {},
        )
        found = (await runner.run(target, asked, bounds)).outcomes
        outcomes[kind] = [*outcomes.get(kind, ()), *found]
    return metrics(outcomes), figures([one for some in outcomes.values() for one in some])


def metrics(outcomes: dict[str, list[Outcome]]) -> dict[str, float]:
    """Rates over the time in which at least one request of the kind ran."""
    rates = {kind: _rate(some) for kind, some in outcomes.items()}
    row = {f"{kind}_per_s": rate for kind, rate in rates.items()}
    for kind in SCHEMAS:
        good = [one for one in outcomes[kind] if one.failure is None]
        row[f"{kind}_tokens"] = sum(one.output_tokens for one in good) / max(1, len(good))
        if rates[FREE]:
            row[f"{kind}_of_free_share"] = rates[kind] / rates[FREE]
    failed = [one for some in outcomes.values() for one in some if one.failure is not None]
    return row | {"failed": float(len(failed))}


def _rate(outcomes: list[Outcome]) -> float:
    busy_s, until = 0.0, 0.0
    for one in sorted(outcomes, key=lambda outcome: outcome.began_at):
        busy_s += max(0.0, one.ended_at - max(one.began_at, until))
        until = max(until, one.ended_at)
    tokens = sum(one.output_tokens for one in outcomes if one.failure is None)
    return tokens / busy_s if busy_s else 0.0
