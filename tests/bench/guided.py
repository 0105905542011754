"""Guided scenarios: answers of a format beside free ones, from one server.

The free answers are as long as the guided ones on average, since a format decides where its answers
end. Both have the same prompts. Rounds take turns in beginning with the one or the other.
"""

from typing import Any

from msgspec import structs

from supervisor.bench import runner
from supervisor.bench.client import Target
from supervisor.bench.figures import Figures, figures
from supervisor.bench.runner import Bounds
from supervisor.bench.workload import Workload

TEXT = {"type": "string", "maxLength": 60}

OBJECT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": TEXT,
        "city": TEXT,
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "height": {"type": "number"},
        "member": {"type": "boolean"},
        "colour": {"enum": ["red", "green", "blue", "yellow"]},
        "tags": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 4},
        "notes": TEXT,
    },
    "additionalProperties": False,
}
OBJECT["required"] = list(OBJECT["properties"])

TREE: dict[str, Any] = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "label": TEXT,
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 3},
            },
            "required": ["label", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}

COUNTRIES = (
    "chile",
    "egypt",
    "france",
    "india",
    "japan",
    "kenya",
    "norway",
    "peru",
    "spain",
    "turkey",
)
VALUES = [f"{country} in {year}" for country in COUNTRIES for year in range(2010, 2020)]
"""A hundred."""


def schema(wanted: dict[str, Any]) -> dict[str, Any]:
    """A request's fields for a JSON schema, as OpenAI, llama-server and gpufc read them."""
    named = {"name": "answer", "schema": wanted, "strict": True}
    return {
        "response_format": {"type": "json_schema", "json_schema": named},
        "ignore_eos": False,
    }


FORMATS: dict[str, dict[str, Any]] = {
    "object": schema(OBJECT),
    "enum": schema({"enum": VALUES}),
    "tree": schema(TREE),
    "regex": {"regex": r"([A-Z][a-z]{2,12} ){8,24}[0-9]{4}-[0-9]{2}-[0-9]{2}", "ignore_eos": False},
}
"""A request's fields, by the name of its format."""


async def guide(
    target: Target, workload: Workload, bounds: Bounds, n_ctx: int
) -> tuple[dict[str, float], Figures]:
    """Both rates and their ratio, and the figures of the guided answers."""
    sized = await _measure(target, workload, structs.replace(bounds, requests=bounds.streams))
    free = structs.replace(workload, fields={}, output_tokens=mean_tokens(sized))
    is_first = workload.seed % 2
    unguided = None if is_first else await _measure(target, free, bounds)
    guided = await _measure(target, workload, bounds)
    if unguided is None:
        unguided = await _measure(target, free, bounds)
    return metrics(guided, unguided), guided


def metrics(guided: Figures, unguided: Figures) -> dict[str, float]:
    """The flat row of a round. `guided_share` is of the free answers' rate."""
    row = {
        "guided_tokens_per_s": guided.output_tokens_per_s,
        "unguided_tokens_per_s": unguided.output_tokens_per_s,
        "guided_share": guided.output_tokens_per_s / max(unguided.output_tokens_per_s, 1e-9),
        "tokens_per_answer": float(mean_tokens(guided)),
        "failed": float(sum(one.requests - one.succeeded for one in (guided, unguided))),
    }
    for name, found in (("guided", guided), ("unguided", unguided)):
        if found.inter_token_s is not None:
            row[f"{name}_gap_p50_ms"] = found.inter_token_s.p50 * 1000
            row[f"{name}_gap_p99_ms"] = found.inter_token_s.p99 * 1000
    return row


def mean_tokens(found: Figures) -> int:
    """Of an answer; at least one."""
    return max(1, round(found.output_tokens / max(1, found.succeeded)))


async def _measure(target: Target, workload: Workload, bounds: Bounds) -> Figures:
    return figures((await runner.run(target, workload, bounds)).outcomes)
