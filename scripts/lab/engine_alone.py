"""The scripted engine in one process, without front, link or worker.

The service's times are compared with its times. Runs `--requests` of `--tokens` each, `--streams`
at a time, and prints JSON: for each request the seconds until its first token, and the seconds
between tokens of one stream.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.fake.vocabulary import tokenize
from engine_worker.engine.loop import Engine
from gpufc.config import BackendKind, ModelConfig
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import FromWorker, Generate, Step
from gpufc.sampling import SamplingParams

Arrival = tuple[float, Step]


def main() -> None:
    options = _options()
    arrivals: list[Arrival] = []
    n_ended: SimpleQueue[int] = SimpleQueue()
    engine = _engine(options.streams, options.step_ms, arrivals, n_ended)
    began: dict[int, float] = {}
    numbers = iter(range(options.requests))
    for number in itertools.islice(numbers, options.streams):
        _begin(engine, number, options.tokens, began)
    left = options.requests
    while left:
        ended = n_ended.get()
        left -= ended
        for number in itertools.islice(numbers, ended):
            _begin(engine, number, options.tokens, began)
    times = _times(arrivals)
    first = [times[number][0] - began[number] for number in began]
    gaps = [b - a for stream in times.values() for a, b in itertools.pairwise(stream)]
    print(json.dumps({"first_token_s": first, "gaps_s": gaps}))


def _times(arrivals: list[Arrival]) -> dict[int, list[float]]:
    """When each request's tokens came."""
    times: dict[int, list[float]] = defaultdict(list)
    for at, step in arrivals:
        for delta in step.deltas:
            times[delta.request] += [at] * len(delta.tokens)
    return times


def _engine(
    streams: int, step_ms: float, arrivals: list[Arrival], n_ended: "SimpleQueue[int]"
) -> Engine:
    """A running engine. Its thread notes messages and says how many requests have ended; a thread
    that did more with the messages meanwhile would take the interpreter from it."""
    config = ModelConfig(backend=BackendKind.FAKE, fake_script=f"step_ms={step_ms}")
    backend = FakeBackend.load(config, streams + config.cached_sequences, lambda _: None)

    def emit(message: FromWorker) -> None:
        if isinstance(message, Step):
            arrivals.append((time.monotonic(), message))
            ended = sum(delta.finish is not None for delta in message.deltas)
            if ended:
                n_ended.put(ended)

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
