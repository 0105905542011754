"""Answers that a real model generates for JSON schemas, checked by an independent validator.

    python -m scripts.lab.schema_answers SCHEMAS.jsonl.gz [--model MODEL.gguf] [--count 100]

Each line of the file has `name` and `schema`. The schemas are asked for in the file's order until
`--count` answers are whole, and `jsonschema` checks each of these. An answer that reached
`--tokens` is cut: a beginning is neither valid nor invalid, so another schema is asked for in its
place, and the cut one is listed. Prints a table, each exception with its reason, and the deaths of
workers.
"""

import argparse
import asyncio
import gzip
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from jsonschema.validators import Draft202012Validator, validator_for

from scripts.lab.model_swaps import free_port, serving
from supervisor import demo_model

PATIENCE = aiohttp.ClientTimeout(total=None)
READY_S = 120.0
WHOLE = ("valid", "invalid")
PROMPT = "Write one realistic example document for the schema. Keep every text short."


class Judged(NamedTuple):
    """`verdict` is `valid`, `cut`, `invalid`, `refused` or `failed`; `reason` says why."""

    name: str
    verdict: str
    reason: str
    n_tokens: int = 0


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path) as file:
        for line in file:
            yield json.loads(line)


def judge(name: str, schema: Any, status: int, answer: Any) -> Judged:
    """The verdict on one answer of the service. Pure."""
    if status != 200:
        error = answer["error"]
        verdict = "refused" if status == 400 else "failed"
        return Judged(name, verdict, f"{status} {error.get('code')}: {error['message'][:160]}")
    choice, n_tokens = answer["choices"][0], answer["usage"]["completion_tokens"]
    text = choice["message"]["content"] or ""
    if choice["finish_reason"] == "length":
        return Judged(name, "cut", f"…{text[-80:]!r}", n_tokens)
    try:
        document = json.loads(text)
    except ValueError as err:
        return Judged(name, "invalid", f"no JSON: {err}", n_tokens)
    validator = validator_for(schema, default=Draft202012Validator)(schema)
    for error in validator.iter_errors(document):
        return Judged(name, "invalid", f"{error.json_path}: {error.message[:160]}", n_tokens)
    return Judged(name, "valid", "", n_tokens)


async def asked(
    session: aiohttp.ClientSession, row: dict[str, Any], number: int, options: argparse.Namespace
) -> Judged:
    body = {
        "messages": [{"role": "user", "content": PROMPT}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": row["schema"]},
        },
        "max_tokens": options.tokens,
        "temperature": options.temperature,
        "dry_multiplier": options.dry,
        "seed": number,
    }
    async with session.post("/v1/chat/completions", json=body) as response:
        return judge(row["name"], row["schema"], response.status, await response.json())


async def run(options: argparse.Namespace, folder: Path) -> tuple[list[Judged], int]:
    """All verdicts, and the restarts of workers meanwhile."""
    port, found = free_port(), list[Judged]()
    command = [
        *(sys.executable, "-m", "supervisor.cli", "start", "--port", str(port)),
        *("--model-path", options.model or str(demo_model.find())),
        *("--n-ctx", str(options.n_ctx), "--runtime-dir", str(folder / "run")),
    ]
    waiting = (
        (number, row)
        for number, row in enumerate(rows(options.schemas))
        if not options.only or row["name"] in options.only
    )
    async with (
        serving(command, port, folder / "log") as url,
        aiohttp.ClientSession(url, timeout=PATIENCE) as session,
    ):
        await ready(session)

        async def ask_on() -> None:
            for number, row in waiting:
                if sum(one.verdict in WHOLE for one in found) >= options.count:
                    return
                found.append(await asked(session, row, number, options))
                print(number, *found[-1], flush=True)

        async with asyncio.TaskGroup() as group:
            for _ in range(options.streams):
                group.create_task(ask_on())
        async with session.get("/stats") as response:
            workers = (await response.json())["workers"]
    return found, sum(worker["restarts"] for worker in workers)


async def ready(session: aiohttp.ClientSession) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        async with session.get("/readyz") as response:
            if response.status == 200:
                return
        await asyncio.sleep(0.2)
    raise TimeoutError("the service is not ready")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("schemas", type=Path)
    parser.add_argument("--model", default="", help="a GGUF file; else the demo model")
    parser.add_argument("--count", type=int, default=100, help="whole answers")
    parser.add_argument("--tokens", type=int, default=1500)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--dry", type=float, default=0.8, help="keeps a small model from loops")
    parser.add_argument("--only", nargs="*", default=(), metavar="NAME")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--n-ctx", type=int, default=2048)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, n_restarts = asyncio.run(run(options, Path(folder)))
    counts = Counter(one.verdict for one in found)
    print("| asked | refused | valid | cut | invalid | failed | tokens | deaths |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    cells = [counts[name] for name in ("refused", "valid", "cut", "invalid", "failed")]
    tokens = sum(one.n_tokens for one in found)
    print("|", " | ".join(map(str, [len(found), *cells, tokens, n_restarts])), "|")
    for one in found:
        if one.verdict != "valid":
            print(f"- {one.verdict} {one.name}: {one.reason}")


if __name__ == "__main__":
    main()
