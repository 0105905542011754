"""The scripted engine in one process, without front, link or worker: what added time is against.

Runs `--requests` of `--tokens` each, `--streams` at a time, and prints JSON: for each request the
seconds until its first token, and the seconds between tokens of one stream.
"""

import argparse
import itertools
import json
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from queue import SimpleQueue

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine_worker.engine import Engine
from engine_worker.fake_backend import FakeBackend
from engine_worker.fake_vocabulary import tokenize
from gpufc.config import BackendKind, ModelConfig
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import FromWorker, Generate, Step
from gpufc.sampling import SamplingParams

Arrival = tuple[float, Step]


def main() -> None:
    options = _options()
    arrivals: SimpleQueue[Arrival] = SimpleQueue()
    engine = _engine(options.streams, options.step_ms, arrivals)
    began: dict[int, float] = {}
    times: dict[int, list[float]] = defaultdict(list)
    numbers = iter(range(options.requests))
    for number in itertools.islice(numbers, options.streams):
        _begin(engine, number, options.tokens, began)
    while sum(map(len, times.values())) < options.requests * options.tokens:
        at, step = arrivals.get()
        for delta in step.deltas:
            times[delta.request] += [at] * len(delta.tokens)
            if delta.finish is not None and (number := next(numbers, None)) is not None:
                _begin(engine, number, options.tokens, began)
    first = [times[number][0] - began[number] for number in began]
    gaps = [b - a for stream in times.values() for a, b in itertools.pairwise(stream)]
    print(json.dumps({"first_token_s": first, "gaps_s": gaps}))


def _engine(streams: int, step_ms: float, arrivals: "SimpleQueue[Arrival]") -> Engine:
    config = ModelConfig(backend=BackendKind.FAKE, fake_script=f"step_ms={step_ms}")
    backend = FakeBackend.load(config, streams + config.cached_sequences, lambda _: None)

    def emit(message: FromWorker) -> None:
        if isinstance(message, Step):
            arrivals.put((time.monotonic(), message))

    engine = Engine(backend, emit, epoch=Epoch(1), max_running=streams, batch_tokens=256)
    threading.Thread(target=engine.run, daemon=True).start()
    return engine


def _begin(engine: Engine, number: int, n_tokens: int, began: dict[int, float]) -> None:
    began[number] = time.monotonic()
    prompt = tuple(tokenize(f"prompt {number}", add_special=True))
    engine.inbox.put(
        Generate(
            epoch=Epoch(1),
            request=RequestNo(number),
            request_id=RequestId(str(number)),
            choice=0,
            prompt_tokens=prompt,
            sampling=SamplingParams(seed=1, ignore_eos=True),
            max_tokens=n_tokens,
        )
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--requests", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument("--step-ms", type=float, default=0.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
