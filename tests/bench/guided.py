"""The guided scenarios: the speed of answers that a schema binds, beside free answers.

One server gives all kinds of answers in turn, the free ones first and last. After each kind come
free answers of the same lengths: where answers end at different times, fewer and fewer streams
decode, and any answers get slower. So a kind's rate is compared with that of free answers of its
own lengths (`of_same_lengths_share`), and with that of free answers that are all equally long
(`of_free_share`), in the same run.
"""

from itertools import count
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
    *(
        f"{kind}_{figure}"
        for kind in SCHEMAS
        for figure in ("per_s", "tokens", "of_same_lengths_share", "of_free_share")
    ),
)

Outcomes = dict[str, list[Outcome]]
"""Those of each kind, of `FREE`, and of the free answers that are `alike` a kind's."""


def alike(kind: str) -> str:
    """The name of free answers that are as long as this kind's."""
    return f"{kind}_same_lengths"


async def guide(
    target: Target, workload: Workload, bounds: Bounds, _n_ctx: int
) -> tuple[dict[str, float], Figures]:
    """The metrics of all kinds, and the figures of all answers together."""
    outcomes: Outcomes = {}
    numbers = count(1)

    async def ask(name: str, **changes: Any) -> None:
        # no prompt is asked for twice: it would be in the cache
        asked = structs.replace(workload, seed=workload.seed + 1000 * next(numbers), **changes)
        found = (await runner.run(target, asked, bounds)).outcomes
        outcomes[name] = [*outcomes.get(name, ()), *found]

    await ask(FREE)
    for kind, schema in SCHEMAS.items():
        await ask(kind, fields={"json_schema": schema, "ignore_eos": False})
        await ask(alike(kind), lengths=lengths(outcomes[kind]))
    await ask(FREE)
    return metrics(outcomes), figures([one for some in outcomes.values() for one in some])


def lengths(outcomes: list[Outcome]) -> tuple[int, ...]:
    """The answers' numbers of tokens, by conversation."""
    ordered = sorted(outcomes, key=lambda one: one.conversation)
    return tuple(max(1, one.output_tokens) for one in ordered)


def metrics(outcomes: Outcomes) -> dict[str, float]:
    """Rates over the time in which at least one request of the kind ran."""
    rates = {kind: _rate(some) for kind, some in outcomes.items()}
    row = {f"{kind}_per_s": rate for kind, rate in rates.items()}
    for kind in SCHEMAS:
        good = [one for one in outcomes[kind] if one.failure is None]
        row[f"{kind}_tokens"] = sum(one.output_tokens for one in good) / max(1, len(good))
        for name, free in (("same_lengths", alike(kind)), ("free", FREE)):
            if rates[free]:
                row[f"{kind}_of_{name}_share"] = rates[kind] / rates[free]
    failed = [one for some in outcomes.values() for one in some if one.failure is not None]
    return row | {"failed": float(len(failed))}


def _rate(outcomes: list[Outcome]) -> float:
    busy_s, until = 0.0, 0.0
    for one in sorted(outcomes, key=lambda outcome: outcome.began_at):
        busy_s += max(0.0, one.ended_at - max(one.began_at, until))
        until = max(until, one.ended_at)
    tokens = sum(one.output_tokens for one in outcomes if one.failure is None)
    return tokens / busy_s if busy_s else 0.0
