"""Answers that a real model generates for JSON schemas, checked by an independent validator.

    python -m scripts.lab.schema_answers SCHEMAS.jsonl.gz [--model MODEL.gguf] [--count 100]
                                         [--lanes N] [--table FILE.md]

Each line of the file has `name` and `schema`. The schemas are asked for in the file's order until
`--count` answers are whole, and `jsonschema` checks each of these. An answer that reached
`--tokens` is cut: a beginning is neither valid nor invalid, so another schema is asked for in its
place, and the cut one is listed. Prints a table, each exception with its reason, and the deaths of
workers. With `--lanes` so many services answer side by side, each with its share of the cores.
`--table` is written again after every answer, so that a run that is cut off leaves what it has.
"""

import argparse
import asyncio
import gzip
import json
import os
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


class Survey:
    """What has been asked and found. `waiting` are the schemas that are left, by number."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.found: list[Judged] = []
        self.deaths: dict[int, int] = {}
        self.waiting = (
            (number, row)
            for number, row in enumerate(rows(options.schemas))
            if number >= options.skip and (not options.only or row["name"] in options.only)
        )
        self._n_asked = 0

    def next(self) -> tuple[int, dict[str, Any]] | None:
        """Another schema to ask for, as long as the answers under way are too few."""
        n_other = sum(one.verdict not in WHOLE for one in self.found)
        if self._n_asked - n_other >= self._options.count:
            return None
        self._n_asked += 1
        return next(self.waiting, None)

    def add(self, judged: Judged, lane: int, deaths: int) -> None:
        self.found.append(judged)
        self.deaths[lane] = deaths
        if self._options.table is not None:
            self._options.table.write_text(self.table())

    def table(self) -> str:
        counts = Counter(one.verdict for one in self.found)
        cells = [counts[name] for name in ("refused", "valid", "cut", "invalid", "failed")]
        cells += [sum(one.n_tokens for one in self.found), sum(self.deaths.values())]
        lines = [
            "| asked | refused | valid | cut | invalid | failed | tokens | deaths |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            f"| {' | '.join(map(str, [len(self.found), *cells]))} |",
        ]
        others = (one for one in self.found if one.verdict != "valid")
        lines += [f"- {one.verdict} {one.name}: {one.reason}" for one in others]
        return "\n".join(lines) + "\n"


async def run(options: argparse.Namespace, folder: Path) -> Survey:
    survey = Survey(options)
    async with asyncio.TaskGroup() as group:
        for lane in range(options.lanes):
            group.create_task(serve(survey, lane, options, folder / str(lane)))
    return survey


def command_of(options: argparse.Namespace, folder: Path, port: int) -> list[str]:
    """The command of one lane's service. Its configuration is written into a new folder."""
    folder.mkdir()
    config, model = folder / "gpufc.toml", options.model or demo_model.find()
    n_threads = max(1, len(os.sched_getaffinity(0)) // options.lanes)
    config.write_text(f'model_path = "{model}"\nn_ctx = {options.n_ctx}\nn_threads = {n_threads}\n')
    return [
        *(sys.executable, "-m", "supervisor.cli", "start", "--config", str(config)),
        *("--port", str(port), "--runtime-dir", str(folder / "run")),
    ]


async def serve(survey: Survey, lane: int, options: argparse.Namespace, folder: Path) -> None:
    """One service, and the streams that ask it for answers."""
    port = free_port()
    command = command_of(options, folder, port)
    async with (
        serving(command, port, folder / "log") as url,
        aiohttp.ClientSession(url, timeout=PATIENCE) as session,
    ):
        await ready(session)

        async def ask_on() -> None:
            while (one := survey.next()) is not None:
                number, row = one
                judged = await asked(session, row, number, options)
                survey.add(judged, lane, await deaths(session))
                print(number, *judged, flush=True)

        async with asyncio.TaskGroup() as group:
            for _ in range(options.streams):
                group.create_task(ask_on())


async def deaths(session: aiohttp.ClientSession) -> int:
    """How often workers of the service have been started again."""
    async with session.get("/stats") as response:
        return sum(worker["restarts"] for worker in (await response.json())["workers"])


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
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="begin after N schemas")
    parser.add_argument("--tokens", type=int, default=1500)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--dry", type=float, default=0.8, help="keeps a small model from loops")
    parser.add_argument("--only", nargs="*", default=(), metavar="NAME")
    parser.add_argument("--streams", type=int, default=4, help="of each lane")
    parser.add_argument("--lanes", type=int, default=1, metavar="N", help="services side by side")
    parser.add_argument("--table", type=Path, metavar="FILE.md", help="written meanwhile, too")
    parser.add_argument("--n-ctx", type=int, default=2048)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        survey = asyncio.run(run(options, Path(folder)))
    print(survey.table(), end="")


if __name__ == "__main__":
    main()
