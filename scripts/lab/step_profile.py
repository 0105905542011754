"""Where the time of an engine step goes, on a real model, without front or link.

    python scripts/lab/step_profile.py MODEL.gguf --streams 64 --tokens 200
    python scripts/lab/step_profile.py MODEL.gguf --streams 64 --coming-and-going
    python scripts/lab/step_profile.py MODEL.gguf --streams 64 --guided regex

Lets so many sequences decode at once and prints, for steps in which all of them do, the median
milliseconds of each part: asking for drafts (`draft`), planning and handing the batch over
(`begin`; a CPU computes it there), reporting the step before (`report`), masks that are not there
yet (`masks`), the part of sampling without logits (`prepare`), waiting for the device (`wait`),
choosing tokens (`choose`), and appending them to sequences (`accept`).

With `--guided` a schema of the bench's guided scenarios binds all answers. Below the parts are the
milliseconds in which masks are computed, the rows with a refused token (`refused rows`), what their
second choice takes within `choose`, and of each finder of candidates the milliseconds and the rows
that it answers.

With `--coming-and-going` answers are of different lengths, and another request follows each that
ends: the tokens per second of all steps, and the time of steps with and without prompts.
"""

import argparse
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine_worker.backend.llama.backend import (
    LlamaBackend,  # before numpy: see engine_worker/__main__.py
)

from engine_worker.constraints.compiler import Compiler  # isort: skip
from engine_worker.constraints.llg import MaskThreads
from engine_worker.engine import choosing
from engine_worker.engine.loop import Engine
from engine_worker.speculation.prompt_lookup import PromptLookup
from gpufc.config import KvUnified, ModelConfig
from gpufc.constraint import Constraint, ConstraintKind
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Generate
from gpufc.sampling import SamplingParams
from tests.bench.guided import SCHEMAS

PARTS = ("draft", "begin", "report", "masks", "prepare", "wait", "choose", "accept")


def main() -> None:
    options = _options()
    config = ModelConfig(
        model_path=str(options.model),
        n_ctx=options.n_ctx,
        kv_unified=options.layout,
        n_threads=options.threads,
    )
    backend = LlamaBackend.load(config, options.streams + 4, lambda _: None)
    compiler = Compiler(backend)
    if options.guided is not None:
        compiler.compile(_constraint(options))
        compiler.close()
    engine = Engine(
        backend,
        lambda _: None,
        epoch=Epoch(1),
        max_running=options.streams,
        batch_tokens=backend.facts.batch_tokens,
        drafter=PromptLookup() if options.speculation else None,
        guide=compiler.guide,
    )
    if options.coming_and_going:
        _come_and_go(engine, backend, options)
        return
    spent = _timed(engine)
    for number in range(options.streams):
        engine.inbox.put(_request(number, backend, options, options.tokens))
    steps, first_s = _run(engine, options.streams, spent)
    print(f"all first tokens after {first_s * 1000:.0f} ms")
    print(f"{options.model.name}, {options.streams} streams, {backend.facts.unified=}, medians of")
    print(f"{len(steps)} steps in which all decode, milliseconds:")
    for part in (*PARTS, "step"):
        print(f"  {part:8}{median(step[part] for step in steps) * 1000:8.2f}")
    for part in sorted({part for step in steps for part in step} - {*PARTS, "step"}):
        factor = 1.0 if part.endswith("rows") else 1000.0
        print(f"    {part:24}{median(step.get(part, 0.0) for step in steps) * factor:8.2f}")
    print(f"  {options.streams / median(step['step'] for step in steps):.0f} tokens/s")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("model", type=Path)
    add("--streams", type=int, default=8)
    add("--tokens", type=int, default=200, help="that each generates")
    add("--prompt", type=int, default=128, help="tokens of each prompt")
    add("--n-ctx", type=int, default=2048)
    add("--layout", type=KvUnified, default=KvUnified.AUTO, choices=list(KvUnified))
    add("--threads", type=int, help="(all cores)")
    add("--temperature", type=float, default=0.8)
    add("--speculation", action="store_true")
    add("--coming-and-going", action="store_true")
    add("--guided", choices=list(SCHEMAS), help="the schema that binds the answers (none)")
    return parser.parse_args()


def _request(
    number: int, backend: LlamaBackend, options: argparse.Namespace, n_tokens: int
) -> Generate:
    words = backend.tokenize(f"{number} stories. " * 200, add_special=True, parse_special=False)
    return Generate(
        Epoch(1),
        RequestNo(number + 1),
        RequestId(f"r{number}"),
        choice=0,
        prompt_tokens=tuple(words[: options.prompt]),
        sampling=SamplingParams(
            seed=number, temperature=options.temperature, ignore_eos=options.guided is None
        ),
        max_tokens=n_tokens,
        constraint=_constraint(options),
    )


def _constraint(options: argparse.Namespace) -> Constraint | None:
    if options.guided is None:
        return None
    return Constraint(ConstraintKind.JSON_SCHEMA, json.dumps(SCHEMAS[options.guided]))


def _come_and_go(engine: Engine, backend: LlamaBackend, options: argparse.Namespace) -> None:
    """Until four times as many requests as streams have been answered."""
    lengths = random.Random(0)
    n_requests = 4 * options.streams
    times: dict[bool, list[float]] = {True: [], False: []}
    n_tokens = n_asked = 0
    began = time.perf_counter()
    while n_asked < n_requests or engine.scheduler.running:
        n_held = len(engine.scheduler.running) + len(engine.scheduler.waiting)
        for _ in range(min(options.streams - n_held, n_requests - n_asked)):
            length = lengths.randint(options.tokens // 4, options.tokens * 7 // 4)
            engine.inbox.put(_request(n_asked, backend, options, length))
            n_asked, n_tokens = n_asked + 1, n_tokens + length
        if n_held < options.streams and n_asked == n_requests:
            break  # from now on they are fewer
        engine.take_requests()
        held = chain(engine.scheduler.running, engine.scheduler.waiting)
        has_prompts = any(seq.n_pending > 1 for seq in held)
        started = time.perf_counter()
        engine.run_step()
        times[has_prompts].append(time.perf_counter() - started)
    took_s = time.perf_counter() - began
    n_tokens -= sum(seq.room for seq in engine.scheduler.running)
    print(f"{options.streams} streams, coming and going: {n_tokens / took_s:.0f} tokens/s")
    for has_prompts, steps in times.items():
        kind = "with" if has_prompts else "without"
        print(
            f"  {len(steps)} steps {kind} prompts: median {median(steps) * 1000:.2f} ms,"
            f" mean {sum(steps) / len(steps) * 1000:.2f}"
        )


def _timed(engine: Engine) -> dict[str, float]:
    """Let the engine's parts add the seconds that they take to the returned dictionary."""
    spent: dict[str, float] = defaultdict(float)

    def timed(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                spent[part] += time.perf_counter() - began

        return call

    masks, sampler = engine._choosing._masks, engine._choosing._sampler
    owners: tuple[tuple[str, object, str], ...] = (
        ("draft", engine._drafting, "before_step"),
        ("draft", engine._drafting, "beside_step"),
        ("begin", engine, "_begin_what_fits"),
        ("report", engine._reporter, "flush"),
        ("masks", masks, "begin"),
        ("masks", masks, "take"),
        ("masks", masks, "foresee"),
        ("masks at once", masks, "compute"),
        ("computing masks", MaskThreads, "_compute"),
        ("prepare", choosing, "prepare"),
        ("wait", engine, "_wait_for"),
        ("choose", engine._choosing, "choose"),
        ("second choice: picks", choosing, "second_choice"),
        ("accept", engine, "_accept_all"),
    )
    for part, owner, name in owners:
        setattr(owner, name, timed(part, getattr(owner, name)))

    def counted(part: str, find: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            found = find(*arguments)
            spent[f"{part} rows"] += 0 if found is None else len(found.rows)
            return found

        return timed(part, call)

    def refused(*arguments: Any) -> Any:
        rows = find_refused(*arguments)
        spent["refused rows"] += len(rows)
        return rows

    find_refused, choosing._refused = choosing._refused, refused

    for finder in sampler._finders:
        setattr(finder, "find", counted(type(finder).__name__, finder.find))  # noqa: B010
    return spent


def _run(
    engine: Engine, n_streams: int, spent: dict[str, float]
) -> tuple[list[dict[str, float]], float]:
    """The parts of each step in which all decode, and the seconds before the first of them."""
    engine.take_requests()
    started, first_s = time.perf_counter(), 0.0
    steps = []
    while not engine.scheduler.is_idle:
        spent.clear()
        all_decode = len(engine.scheduler.decoding()) == n_streams
        began = time.perf_counter()
        engine.run_step()
        spent["step"] = time.perf_counter() - began
        if all_decode:
            first_s = first_s or began - started
            steps.append({part: spent[part] for part in (*PARTS, *spent)})
    return steps, first_s


if __name__ == "__main__":
    main()
