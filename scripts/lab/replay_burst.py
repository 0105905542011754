"""How soon streams go on in a worker that takes over another worker's, without front or link.

    python scripts/lab/replay_burst.py MODEL.gguf --running 64 --replays 64

Lets `--running` sequences decode. Then `--replays` sequences arrive at once, as they do when a
worker has died: each with its prompt and between 0 and `--generated` tokens that a client has read.
Prints the milliseconds from the arrival until each has gained its next token (median, 99th
percentile, last), the steps and milliseconds until all have, and the longest gap of the streams
that ran before.

With `--batch-tokens` a step computes at most so many tokens. With `--policy` replays are computed
whole, or in chunks of one length (`overlapped`), whatever the size of the model.
"""

import argparse
import random
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine_worker.backend.llama.backend import (
    LlamaBackend,  # before numpy: see engine_worker/__main__.py
)

from engine_worker.engine.loop import Engine  # isort: skip
from gpufc.config import KvUnified, ModelConfig
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import FromWorker, Generate, Step
from gpufc.sampling import SamplingParams

WORDS = "A story of the sea, told by an old sailor who had lost his ship and found a better one."
WARM_STEPS = 20
N_TOKENS = 600


def main() -> None:
    options = _options()
    n_slots = options.running + options.replays
    config = ModelConfig(
        model_path=str(options.model), n_ctx=1024, kv_unified=options.layout, n_threads=1
    )
    backend = LlamaBackend.load(config, n_slots + 4, lambda _: None)
    told: list[tuple[float, int]] = []  # when a request gained tokens

    def emit(message: FromWorker) -> None:
        if isinstance(message, Step):
            told.extend((time.perf_counter(), delta.request) for delta in message.deltas)

    engine = Engine(
        backend,
        emit,
        epoch=Epoch(1),
        max_running=n_slots,
        batch_tokens=options.batch_tokens or backend.facts.batch_tokens,
    )
    if options.policy is not None:
        engine.scheduler._shape._pays = options.policy == "whole"  # type: ignore[attr-defined]
    words = backend.tokenize(WORDS, add_special=True, parse_special=False)
    for _ in range(options.rounds):
        _round(engine, words, options, told)


def _round(
    engine: Engine, words: list[int], options: argparse.Namespace, told: list[tuple[float, int]]
) -> None:
    dice = random.Random(options.seed)
    for number in range(options.running):
        engine.inbox.put(_request(number, words, options.prompt, 0))
    while not all(seq.n_generated > WARM_STEPS for seq in engine.scheduler.running) or (
        len(engine.scheduler.running) < options.running
    ):
        engine.take_requests()
        engine.run_step()
    told.clear()
    began = time.perf_counter()
    replays = range(options.running, options.running + options.replays)
    for number in replays:
        n_generated = dice.randint(0, options.generated)
        engine.inbox.put(_request(number, words, options.prompt, n_generated))
    first: dict[int, float] = {}
    n_steps = 0
    while len(first) < options.replays:
        engine.take_requests()
        engine.run_step()
        engine._reporter.flush()
        n_steps += 1
        for at, request in told:
            if request in replays:
                first.setdefault(request, at - began)
    waits = sorted(first.values())
    print(
        f"{options.replays} replays beside {options.running} streams: next token after"
        f" {_ms(median(waits))} ms, 99th percentile {_ms(waits[int(0.99 * len(waits))])},"
        f" last {_ms(waits[-1])}; {n_steps} steps; longest gap of the others"
        f" {_ms(_longest_gap(told, range(options.running), began))}"
    )
    for sequence in (*engine.scheduler.running, *engine.scheduler.waiting):
        engine.scheduler.finish(sequence)


def _longest_gap(told: list[tuple[float, int]], requests: range, began: float) -> float:
    last: dict[int, float] = dict.fromkeys(requests, began)
    longest = 0.0
    for at, request in told:
        if request in last:
            longest, last[request] = max(longest, at - last[request]), at
    return longest


def _request(number: int, words: list[int], n_prompt: int, n_generated: int) -> Generate:
    dice = random.Random(number)  # so that no sequence begins as another one does
    known = dice.choices(words[1:], k=n_prompt + n_generated)
    return Generate(
        Epoch(1),
        RequestNo(number),
        RequestId(f"r{number}"),
        choice=0,
        prompt_tokens=tuple(known[:n_prompt]),
        tokens=tuple(known[n_prompt:]),
        sampling=SamplingParams(seed=number, temperature=0.8, ignore_eos=True),
        max_tokens=N_TOKENS,
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("model", type=Path)
    add("--running", type=int, default=64)
    add("--replays", type=int, default=64)
    add("--prompt", type=int, default=12, help="tokens of each prompt")
    add("--generated", type=int, default=300, help="the most tokens that a client has read")
    add("--rounds", type=int, default=3)
    add("--seed", type=int, default=1)
    add("--batch-tokens", type=int, help="(as the worker would choose)")
    add("--policy", choices=["whole", "overlapped"], help="(by the size of the model)")
    add("--layout", type=KvUnified, default=KvUnified.AUTO, choices=list(KvUnified))
    return parser.parse_args()


if __name__ == "__main__":
    main()
