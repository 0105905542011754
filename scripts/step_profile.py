"""Where the time of an engine step goes, on a real model, without front or link.

    python scripts/step_profile.py MODEL.gguf --streams 64 --tokens 200

Lets so many sequences decode at once and prints, for steps in which all of them do, the median
milliseconds of each part: planning and handing the batch over (`begin`; on a CPU it computes), what
the step before brought (`tell`), waiting for the device (`wait`), and choosing tokens (`sample`).
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine_worker.llama_backend import LlamaBackend  # before numpy: see engine_worker/__main__.py

from engine_worker.engine import Engine  # isort: skip
from engine_worker.prompt_lookup import PromptLookup
from gpufc.config import KvUnified, ModelConfig
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Generate
from gpufc.sampling import SamplingParams

PARTS = {
    "guess": "_guesses",
    "begin": "_begin_what_fits",
    "tell": "_tell",
    "wait": "_wait_for",
    "take": "_take",
}


def main() -> None:
    options = _options()
    config = ModelConfig(
        model_path=str(options.model),
        n_ctx=options.n_ctx,
        kv_unified=options.layout,
        n_threads=options.threads,
    )
    backend = LlamaBackend.load(config, options.streams + 4, lambda _: None)
    engine = Engine(
        backend,
        lambda _: None,
        epoch=Epoch(1),
        max_running=options.streams,
        batch_tokens=backend.facts.batch_tokens,
        drafter=PromptLookup() if options.speculation else None,
    )
    spent = _timed(engine)
    for number in range(options.streams):
        engine.inbox.put(_request(number, backend, options))
    steps, first_s = _run(engine, options.streams, spent)
    print(f"all first tokens after {first_s * 1000:.0f} ms")
    print(f"{options.model.name}, {options.streams} streams, {backend.facts.unified=}, medians of")
    print(f"{len(steps)} steps in which all decode, milliseconds:")
    for part in (*PARTS, "choose", "step"):
        print(f"  {part:8}{median(step[part] for step in steps) * 1000:8.2f}")
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
    return parser.parse_args()


def _request(number: int, backend: LlamaBackend, options: argparse.Namespace) -> Generate:
    words = backend.tokenize(f"{number} stories. " * 200, add_special=True, parse_special=False)
    return Generate(
        Epoch(1),
        RequestNo(number + 1),
        RequestId(f"r{number}"),
        choice=0,
        prompt_tokens=tuple(words[: options.prompt]),
        sampling=SamplingParams(seed=number, temperature=options.temperature, ignore_eos=True),
        max_tokens=options.tokens,
    )


def _timed(engine: Engine) -> dict[str, float]:
    """Let the engine's parts add the seconds that they take to what is returned."""
    spent: dict[str, float] = defaultdict(float)

    def timed(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                spent[part] += time.perf_counter() - began

        return call

    for part, name in PARTS.items():
        setattr(engine, name, timed(part, getattr(engine, name)))
    engine._sampler.choose = timed("choose", engine._sampler.choose)
    return spent


def _run(
    engine: Engine, n_streams: int, spent: dict[str, float]
) -> tuple[list[dict[str, float]], float]:
    """The parts of each step in which all decode, and the seconds before the first of them."""
    engine.take_requests()
    started, first_s = time.perf_counter(), 0.0
    steps = []
    while engine.scheduler.running or engine.scheduler.waiting:
        spent.clear()
        all_decode = len(engine.scheduler.decoding()) == n_streams
        began = time.perf_counter()
        engine.run_step()
        spent["step"] = time.perf_counter() - began
        if all_decode:
            first_s = first_s or began - started
            steps.append({part: spent[part] for part in (*PARTS, "choose", "step")})
    return steps, first_s


if __name__ == "__main__":
    main()
