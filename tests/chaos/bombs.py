"""Constraints and tools that are hard to compile, beside streams of the real model.

Each is answered or refused within `LIMIT_S`, no worker ends, and the streams go on.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.chaos.history import History, check, text_times
from tests.chaos.load import ask_real, run_ask
from tests.chaos.report import Report, over, percentile, reporting, spread
from tests.chaos.rig import Rig, rig, stop_and_look

LIMIT_S = 2.5
N_STREAMS = 2
N_TOKENS = 200
SLOWER = 2.0
"""The streams' gaps at the 99 % point may become so many times as long beside bombs."""
MANY = 10_000
MIB = 1 << 20

Body = dict[str, Any]


class Span(Struct):
    """A bomb from its request to its answer, or a gap in a stream."""

    name: str
    at: float
    end: float
    status: int = 0

    @property
    def seconds(self) -> float:
        return self.end - self.at


def _deep(levels: int) -> Body:
    found: Body = {"type": "string"}
    for _ in range(levels):
        found = {"type": "object", "properties": {"a": found}, "required": ["a"]}
    return found


def _chain(n: int, rule: str, start: str, sign: str) -> str:
    rules = "".join(f"{rule}{at} {sign} {rule}{at + 1}\n" for at in range(n))
    return f'{start} {sign} {rule}0\n{rules}{rule}{n} {sign} "a"\n'


OVERLAPPING = [{"properties": {f"p{n}": {"type": "integer"}}} for n in range(120)]
SCHEMAS: dict[str, Any] = {
    "an object of 20 levels": _deep(20),
    "an object of 60 levels": _deep(60),
    "an enum of 4,000 values": {"enum": [f"value {n}" for n in range(4000)]},
    "an enum of 200,000 values": {"enum": list(range(200_000))},
    "minItems and minLength of 10⁹": {
        "type": "array",
        "items": {"type": "string", "minLength": 10**9},
        "minItems": 10**9,
    },
    "maxItems of 10⁹": {"type": "array", "items": {"type": "string"}, "maxItems": 10**9},
    "a catastrophic pattern": {"type": "string", "pattern": "^((a*)*(b|a)*a(a|b){200}){1,9999}$"},
    "a pattern with a repetition of 10⁹": {"type": "string", "pattern": "^a{1000000000}$"},
    "a $ref to itself": {"$ref": "#"},
    "a $ref loop through allOf": {"allOf": [{"$ref": "#"}, {"type": "object"}]},
    "a $ref loop of two": {
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
        "$ref": "#/$defs/a",
    },
    "oneOf of 120 branches that overlap": {"oneOf": OVERLAPPING},
    "multipleOf of seven digits": {"type": "integer", "multipleOf": 9_999_991},
}
GRAMMARS: dict[str, Body] = {
    "30,000 nested groups": {"guided_regex": "(" * 30_000 + ")" * 30_000},
    "a repetition of 10⁹": {"guided_regex": "a{1000000000}"},
    "nested repetitions": {"guided_regex": "((a{1,9999}){1,9999}){1,9999}"},
    "(a*)*b": {"guided_regex": "(a*)*b"},
    "(a|b)*a(a|b){200}": {"guided_regex": "(a|b)*a(a|b){200}"},
    "a choice of 100,000 texts": {"guided_choice": [f"value {n}" for n in range(100_000)]},
    "a Lark rule of 60,000 levels": {"guided_grammar": "start: " + "(" * 60_000},
    "a GBNF rule of 60,000 levels": {"grammar": "root ::= " + "(" * 60_000},
    "a GBNF rule of 32,000 levels": {"grammar": "root ::= " + "(" * 32_000},
    "a chain of 4,500 Lark rules": {"guided_grammar": _chain(4500, "r", "start", ":")},
    "a chain of 1,900 GBNF rules": {"grammar": _chain(1900, "r", "root", "::=")},
    "a chain of 3,500 GBNF rules": {"grammar": _chain(3500, "r", "root", "::=")},
}


def _called(schema: Any, strict: bool) -> Body:
    """A call with the schema as its one argument's."""
    parameters = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    function = {"name": "f", "parameters": parameters, "strict": strict}
    return {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}


def _tools(n: int, n_bytes: int) -> Body:
    """So many functions of together so many bytes."""
    described = {"type": "string", "description": "x" * (n_bytes // n)}
    parameters = {"type": "object", "properties": {"a": described}, "required": ["a"]}
    functions = [{"name": f"f{at}", "parameters": parameters} for at in range(n)]
    tools = [{"type": "function", "function": function} for function in functions]
    return {"tools": tools, "tool_choice": "required"}


def bombs() -> dict[str, Body]:
    """Each bomb's fields."""
    schemas = {f"schema: {name}": {"json_schema": made} for name, made in SCHEMAS.items()}
    calls = {
        f"{'strict ' if strict else ''}call: {name}": _called(made, strict)
        for name, made in SCHEMAS.items()
        for strict in (False, True)
    }
    tools = {
        "10 MB of tools, one": _tools(1, 10_000_000),
        "10 MB of tools, 100": _tools(100, 10_000_000),
        "10 MB of tools, 10,000": _tools(MANY, 10_000_000),
    }
    return GRAMMARS | schemas | calls | tools


async def run(model: Path, n_rounds: int, containing: str = "") -> Report:
    """`n_rounds` times each bomb whose name contains this, beside streams."""
    chosen = {name: fields for name, fields in bombs().items() if containing in name}
    report = reporting(f"bombs: {n_rounds} rounds of {len(chosen)}, beside {N_STREAMS} streams")
    environ = {
        "GPUFC_LOG_LEVEL": "warning",
        "GPUFC_MAX_BODY_BYTES": str(16 * MIB),
        "GPUFC_N_THREADS": "1",
    }
    async with rig("--model-path", str(model), "--n-ctx", "1024", environ=environ) as one:
        restarts = (await one.until_ready())["restarts"]
        # a worker reads its vocabulary for the first constraint, unless it has been idle before
        first = await _sent(one, report, "the first constraint", {"guided_regex": "[ab]"})
        report.row("the first constraint", f"{first.seconds:.2f} s")
        streams = [await _stream(one, report, "undisturbed")]
        undisturbed = [gap.seconds for gap in _gaps(streams)]
        async with _streaming(one, report) as streams:
            answers = [
                await _sent(one, report, name, fields)
                for name, fields in chosen.items()
                for _ in range(n_rounds)
            ]
        gaps = _gaps(streams)
        deaths = (await one.until_idle())["workers"][0]["restarts"] - restarts
        report.wrong += [f"{deaths} workers ended"] * bool(deaths) + stop_and_look(one.service)
    for answer in answers:
        report.wrong += over(answer.name, [answer.seconds], LIMIT_S)
    _tell(report, answers, undisturbed, gaps)
    report.head("workers that bombs ended", f"{deaths} by {len(answers)} bombs")
    return report


def _tell(report: Report, answers: list[Span], undisturbed: list[float], gaps: list[Span]) -> None:
    statuses = Counter(answer.status for answer in answers)
    report.row("answers", ", ".join(f"{n} × {status}" for status, n in sorted(statuses.items())))
    report.row("time of an answer", spread([answer.seconds for answer in answers]))
    report.row("the slowest", _longest(answers))
    beside = [gap.seconds for gap in gaps]
    report.row("gaps of the streams, undisturbed", spread(undisturbed))
    report.row("gaps of the streams, beside bombs", spread(beside))
    longest = max(gaps, key=lambda gap: gap.seconds)
    at_once = [one for one in answers if one.at < longest.end and longest.at < one.end]
    report.row("bombs during the longest gap", _longest(at_once))
    if percentile(beside, 0.99) > SLOWER * percentile(undisturbed, 0.99):
        report.wrong.append("the streams' gaps grew")


def _longest(spans: list[Span]) -> str:
    ordered = sorted(spans, key=lambda span: span.seconds, reverse=True)
    return "; ".join(f"{span.name} {span.seconds:.2f} s" for span in ordered[:4])


def _gaps(streams: list[list[History]]) -> list[Span]:
    """From one text to the next of the same stream."""
    return [
        Span(history.name, at, end)
        for histories in streams
        for history in histories
        for at, end in itertools.pairwise(text_times(history))
    ]


async def _stream(one: Rig, report: Report, name: str) -> list[History]:
    """As many streams at once as there are beside the bombs."""
    asks = [ask_real(f"{name} {number}: a fox", N_TOKENS) for number in range(N_STREAMS)]
    found = await asyncio.gather(*(run_ask(one.session, one.url, ask, name) for ask in asks))
    report.wrong += [f"{name}: {line}" for history in found for line in check(history)]
    return list(found)


@contextlib.asynccontextmanager
async def _streaming(one: Rig, report: Report) -> AsyncIterator[list[list[History]]]:
    """Streams, one set after another, until the block ends."""
    found: list[list[History]] = []
    is_over = asyncio.Event()

    async def go_on() -> None:
        while not is_over.is_set():
            found.append(await _stream(one, report, f"beside {len(found)}"))

    going = asyncio.create_task(go_on())
    try:
        yield found
    finally:
        is_over.set()
        await going


async def _sent(one: Rig, report: Report, name: str, fields: Body) -> Span:
    messages = [{"role": "user", "content": "x"}]
    data = json.dumps({"messages": messages, "max_tokens": 1} | fields)
    headers = {"Content-Type": "application/json"}
    at = time.monotonic()
    url = f"{one.url}/v1/chat/completions"
    async with one.session.post(url, data=data, headers=headers) as response:
        answer = await response.text()
    if response.status not in (200, 400):
        report.wrong.append(f"{name}: {response.status} {answer:.120}")
    return Span(name, at, time.monotonic(), response.status)
