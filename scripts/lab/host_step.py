"""The host's work in an engine step beside a device, without a model and without a device.

    python scripts/lab/host_step.py --streams 64 --kind greedy sampled
    python scripts/lab/host_step.py --streams 64 --kind sampled --parts

A scripted device has its logits at once: random ones, from several matrices in turn, and the
largest tokens of each row as `DeviceTopK` reads them. Prints the microseconds of CPU time of the
engine's thread, medians and least ones of `--steps` steps:

- `between`: from the logits to the next `begin`, while a device has nothing to do;
- `begin`: until the batch is in llama.cpp's arrays;
- `beside`: from there to the wait for the logits, while a device computes.

With `--parts` the parts of `between` as well; to look at a part takes about a microsecond.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import llama_cpp.llama_cpp as lc  # before numpy: see engine_worker/__main__.py

import numpy as np  # isort: skip
from msgspec import structs

from engine_worker.backend.candidates import Candidates, ChangedLogits, Counts, Logits, RowMasks
from engine_worker.backend.fake.backend import FakeBackend
from engine_worker.backend.llama.batch import BatchArrays
from engine_worker.backend.llama.device_top_k import Found, K, candidates_from_device
from engine_worker.backend.port import Batch
from engine_worker.engine import loop
from engine_worker.engine.loop import Engine
from gpufc.config import BackendKind, KvUnified, ModelConfig
from gpufc.ids import Epoch, RequestId, RequestNo
from gpufc.protocol import Generate
from gpufc.sampling import SamplingParams

KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.8, "top_k": 40, "top_p": 0.95},
    "sampled, no end": {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "ignore_eos": True},
    "repeat penalty": {"temperature": 0.8, "repeat_penalty": 1.1},
}
N_MATRICES = 4
WARM_STEPS = 20
N_CTX = 1024


class Ready(FakeBackend):
    """A device with logits that are there at once, the same ones every few steps."""

    def __init__(self, n_streams: int, n_vocab: int, wait_s: float) -> None:
        config = ModelConfig(
            backend=BackendKind.FAKE,
            n_ctx=N_CTX,
            kv_cells=N_CTX * (n_streams + 4),
            kv_unified=KvUnified.FALSE,
        )
        super().__init__(config, n_streams + 4)
        self.facts = structs.replace(
            self.facts,
            n_vocab=n_vocab,
            asynchronous=True,
            n_gpu_layers=self.facts.n_layers,
            batch_tokens=2048,
        )
        dice = np.random.default_rng(0)
        self._matrices = [
            dice.standard_normal((n_streams, n_vocab), np.float32) * 3 for _ in range(N_MATRICES)
        ]
        self._largest = [_largest(logits) for logits in self._matrices]
        self._wait_s = wait_s
        self._arrays = BatchArrays(lc, 4096)
        self._n_steps = self._n_rows = 0
        self.spent: dict[str, float] = {}
        """Seconds of the parts of the last step."""
        self._begun = self._asked = 0.0

    def begin(self, batch: Batch) -> None:
        began = time.thread_time()
        self._arrays.fill(batch)
        self._n_rows = sum(batch.outputs)
        self._n_steps += 1
        self._begun = time.thread_time()
        self.spent |= {"between": began - self._asked, "begin": self._begun - began}

    def logits(self) -> Logits:
        self.spent["beside"] = time.thread_time() - self._begun
        if self._wait_s:
            time.sleep(self._wait_s)
        self._asked = time.thread_time()
        return self._matrices[self._n_steps % N_MATRICES][: self._n_rows]

    def find(
        self, logits: Logits, k: Counts, changed: ChangedLogits, masks: RowMasks | None
    ) -> Candidates | None:
        """`DeviceTopK.find` of the last logits."""
        found = self._largest[self._n_steps % N_MATRICES][: len(logits)].copy()
        read = Found(found[:, :K].astype(np.int64), found[:, K : 2 * K], found[:, 2 * K])
        return candidates_from_device(logits, read, k, changed, masks)

    def finders(self, n_threads: int) -> tuple["Ready", ...]:
        return (self,)

    def remove(self, slot: int, start: int = 0) -> None:
        pass

    def copy_prefix(self, source: int, target: int, n_tokens: int) -> None:
        pass

    def piece(self, token: int) -> bytes:
        return b" word"

    def is_end(self, token: int) -> bool:
        return False


def _largest(logits: Logits) -> Logits:
    """What `DeviceTopK` reads of each row: K ids, their logits, the sum of all."""
    ids = np.sort(np.argpartition(logits, -K, axis=1)[:, -K:], axis=1)
    values = np.take_along_axis(logits, ids, axis=1)
    return np.hstack([ids.astype(np.float32), values, logits.sum(axis=1, keepdims=True)])


def main() -> None:
    options = _options()
    for kind in options.kind:
        backend = Ready(options.streams, options.vocabulary, options.wait_ms / 1000)
        engine = Engine(
            backend,
            lambda _: None,
            epoch=Epoch(1),
            max_running=options.streams,
            batch_tokens=backend.facts.batch_tokens,
        )
        for number in range(options.streams):
            engine.inbox.put(_request(number, KINDS[kind]))
        spent = _timed(engine) if options.parts else {}
        _report(f"{kind}, {options.streams} streams", _steps(engine, backend, spent, options.steps))


def _request(number: int, kind: dict[str, Any]) -> Generate:
    return Generate(
        Epoch(1),
        RequestNo(number),
        RequestId(f"r{number}"),
        choice=0,
        prompt_tokens=tuple(range(97 + number, 113 + number)),
        sampling=SamplingParams(seed=number, **kind),
        max_tokens=N_CTX,
    )


def _steps(
    engine: Engine, backend: Ready, spent: dict[str, float], n_steps: int
) -> list[dict[str, float]]:
    """The seconds of each part in each step in which all sequences decode."""
    found = []
    for number in range(-WARM_STEPS, n_steps):
        spent.clear()
        engine.take_requests()
        engine.run_embedder(engine.run_step())
        if number >= 0:
            parts = {f"  {part}": seconds for part, seconds in spent.items()}
            found.append(backend.spent | parts)
    return found


def _timed(engine: Engine) -> dict[str, float]:
    """Let parts of `between` add the seconds that they take to the returned dictionary."""
    spent: dict[str, float] = defaultdict(float)

    def timed(part: str, owner: object, name: str) -> None:
        method: Callable[..., Any] = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            began = time.thread_time()
            try:
                return method(*arguments, **named)
            finally:
                spent[part] += time.thread_time() - began

        setattr(owner, name, call)

    for part, owner, name in (
        ("choose", engine._choosing, "choose"),
        ("accept", engine, "_accept_all"),
        ("foresee", engine._choosing, "foresee"),
        ("hold", engine._reporter, "add"),
        ("requests", engine, "take_requests"),
        ("draft", engine._drafting, "before_step"),
        ("plan", engine.scheduler, "plan"),
        ("note", engine, "_note"),
        ("batch", loop, "batch_of"),
    ):
        timed(part, owner, name)
    return spent


def _report(title: str, steps: list[dict[str, float]]) -> None:
    print(title)
    for part in steps[0]:
        times = sorted(step[part] * 1e6 for step in steps)
        print(f"  {part:12} median {median(times):7.0f} µs, least {times[0]:7.0f}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--streams", type=int, default=64)
    add("--vocabulary", type=int, default=49_152)
    add("--kind", nargs="+", choices=list(KINDS), default=["greedy", "sampled"])
    add("--wait-ms", type=float, default=0.0, help="sleep for the logits, as long as a device does")
    add("--steps", type=int, default=300)
    add("--parts", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
