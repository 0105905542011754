"""A real model's gaps between tokens, alone and beside a batch of inputs to embed.

One process, one thread. Times are processor time, so that a busy machine changes little. Prints a
row for each number of streams: the gaps alone and beside, in milliseconds, and their ratio. Then
the tokens of inputs that were embedded for each second, beside the streams and alone.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine_worker.backend.llama.backend import LlamaBackend
from engine_worker.engine.loop import Engine
from engine_worker.prompts.embedding_inputs import Wanted
from gpufc.config import ModelConfig
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Embedded, FromWorker, Generate, Step
from gpufc.sampling import SamplingParams

FIRST_INPUT = 1_000_000
PIECE = 1


class Clock:
    """Stands in for the module `time` in the engine."""

    monotonic = staticmethod(time.process_time)


def main() -> None:
    options = _options()
    for name in ("loop", "embedding"):
        module: Any = sys.modules[f"engine_worker.engine.{name}"]
        module.time = Clock
    config = ModelConfig(model_path=options.model, n_threads=1, n_ctx=2048)
    for n_streams in options.streams:
        backend = LlamaBackend.load(config, n_streams + 2, lambda _: None)
        _measure(backend, n_streams, options)
        backend.close()


def _measure(backend: LlamaBackend, n_streams: int, options: argparse.Namespace) -> None:
    run = Run(backend, n_streams)
    alone = run.gaps(options.tokens)
    run.embed(options.inputs, options.input_tokens)
    idle_rate = run.rate_alone()
    began, before = time.process_time(), run.n_embedded
    beside = run.gaps(options.tokens)
    rate = (run.n_embedded - before) / (time.process_time() - began)
    print(f"{n_streams} streams   p50    p99    max")
    for name, gaps in (("alone", alone), ("beside", beside)):
        print(f"  {name:9}" + "".join(f"{_at(gaps, part) * 1e3:7.1f}" for part in (0.5, 0.99, 1)))
    ratios = [_at(beside, part) / _at(alone, 0.5) for part in (0.5, 0.99, 1)]
    print("  to p50   " + "".join(f"{ratio:7.2f}" for ratio in ratios))
    print(f"  embedded tokens/s: {rate:.0f} beside, {idle_rate:.0f} alone", flush=True)


class Run:
    """An engine in this thread. `n_embedded` counts the tokens of finished pieces."""

    def __init__(self, backend: LlamaBackend, n_streams: int) -> None:
        self.n_embedded = 0
        self._n_streams, self._n_requests = n_streams, 0
        self._arrivals: list[float] = []
        self._engine = Engine(
            backend,
            self._emitted,
            epoch=Epoch(1),
            max_running=n_streams,
            batch_tokens=backend.facts.batch_tokens,
        )

    def gaps(self, n_tokens: int) -> list[float]:
        """Seconds between the tokens of streams that begin together."""
        for _ in range(self._n_streams):
            self._n_requests += 1
            self._engine.inbox.put(_sequence(self._n_requests, n_tokens))
        self._arrivals = []
        self._turn()
        while not self._engine.scheduler.is_idle:
            self._turn()
        # the first steps compute the prompts
        return [b - a for a, b in zip(self._arrivals[5:], self._arrivals[6:], strict=False)]

    def embed(self, n_inputs: int, n_tokens: int) -> None:
        """Put a batch of inputs into the engine's queue."""
        for at in range(0, n_inputs, PIECE):
            inputs = tuple(
                tuple(100 + (7 * number + 31 * place) % 20_000 for place in range(n_tokens))
                for number in range(at, min(at + PIECE, n_inputs))
            )
            self._engine.inbox.put(Wanted(Epoch(1), RequestNo(FIRST_INPUT + at), inputs))

    def rate_alone(self) -> float:
        """Tokens for each second while nothing is generated, over two pieces."""
        self._engine.take_requests()
        began = time.process_time()
        while self.n_embedded == 0 or time.process_time() - began < 5:
            self._engine.run_embedder(None)
        rate = self.n_embedded / (time.process_time() - began)
        return rate

    def _turn(self) -> None:
        self._engine.take_requests()
        plan = self._engine.run_step()
        self._engine.run_embedder(plan)

    def _emitted(self, message: FromWorker) -> None:
        match message:
            case Step():
                self._arrivals.append(time.process_time())
            case Embedded():
                self.n_embedded += sum(one.n_tokens for one in message.embeddings)
            case _:
                raise AssertionError(message)


def _sequence(no: int, n_tokens: int) -> Generate:
    return Generate(
        Epoch(1),
        RequestNo(no),
        RequestId(str(no)),
        0,
        tuple(range(1000 + no, 1020 + no)),
        SamplingParams(seed=1, temperature=0.0, ignore_eos=True),
        max_tokens=n_tokens,
        cache_prompt=False,
    )


def _at(gaps: list[float], part: float) -> float:
    return sorted(gaps)[round(part * (len(gaps) - 1))]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tokens", type=int, default=100, help="of each stream")
    parser.add_argument("--inputs", type=int, default=2048)
    parser.add_argument("--input-tokens", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
