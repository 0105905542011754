"""What it costs to carry computed KV to the next worker, beside computing it again there.

For each context length and number of sequences: the time that prefill takes, against that of
writing the KV into a memory file, reading it into a second context of the same model, and computing
the next token there. Both contexts are in this process, one after the other at work, as in a
restart. Nothing but the project and its engine is needed:

    python scripts/lab/kv_handover_cost.py --model FILE.gguf --contexts 128,1024 --sequences 1,8

Every figure is the median of `--rounds`. `agrees` says whether the second context's next tokens are
those of the first one.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine_worker.backend.llama.backend import (
    LlamaBackend,  # before numpy: see engine_worker/__main__.py
)

import numpy as np  # isort: skip
from msgspec import Struct

from engine_worker.backend.port import Backend, Batch, Logits
from engine_worker.kv.edits import KvEdit
from engine_worker.kv.transfer import Holding, export, take_over
from gpufc.config import KvUnified, ModelConfig

ROOM = 64
"""Cells beyond the context, for the tokens that come after it."""


class Cost(Struct, frozen=True):
    """One round. Times in seconds, sizes in bytes, over all sequences."""

    prefill_s: float
    export_s: float
    import_s: float
    next_s: float
    n_bytes: int
    agrees: bool

    @property
    def handover_s(self) -> float:
        """Until the second context has its next token."""
        return self.export_s + self.import_s + self.next_s


class Keeper:
    """Gives out slots in order."""

    def __init__(self) -> None:
        self._n_given = 0

    def take_edits(self) -> list[KvEdit]:
        return []

    def holdings(self) -> list[Holding]:
        return []

    def adopt(self, scope: str, tokens: tuple[int, ...]) -> int:
        self._n_given += 1
        return self._n_given - 1

    def disown(self, slot: int) -> None:
        raise SystemExit(f"the second context does not take sequence {slot}")


def main() -> None:
    options = _options()
    contexts, counts = _numbers(options.contexts), _numbers(options.sequences)
    most, n_ctx = max(counts), max(contexts) + ROOM
    config = ModelConfig(
        model_path=str(options.model.absolute()),
        n_ctx=n_ctx,
        n_gpu_layers=options.n_gpu_layers,
        n_threads=options.threads,
        kv_unified=KvUnified(options.kv_unified),
        kv_cells=n_ctx * most if options.kv_unified == KvUnified.TRUE else None,
        cached_sequences=0,
    )
    old, new = (LlamaBackend.load(config, most, lambda _: None) for _ in range(2))
    print(f"{options.model.name}, {old.facts.n_gpu_layers} of {old.facts.n_layers} layers on a GPU")
    print(f"{_conditions()}, batches of {old.facts.batch_tokens} tokens, {options.rounds} rounds")
    rows = []
    for n_sequences in counts:
        for context in contexts:
            costs = [_round(old, new, n_sequences, context) for _ in range(options.rounds)]
            rows.append(_row(n_sequences, context, costs))
            print(_line(rows[-1], header=len(rows) == 1), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--model", type=Path, required=True, help="a GGUF file")
    add("--contexts", default="128,512,2048", help="tokens of a sequence, comma separated")
    add("--sequences", default="1,8", help="sequences at once, comma separated")
    add("--rounds", type=int, default=3)
    add("--threads", type=int, help="CPU threads [default: the cores there are]")
    add("--n-gpu-layers", type=int, default=999)
    add("--kv-unified", choices=("true", "false"), default="true")
    add("--json", type=Path, metavar="FILE", help="where to write the figures")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _conditions() -> str:
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    return f"{cores} cores, load {load:.1f} (1 min), Python {platform.python_version()}"


def _round(old: Backend, new: Backend, n_sequences: int, context: int) -> Cost:
    """Prefill in the one context, hand over to the other, go on there. Leaves both empty."""
    chance = np.random.default_rng(context * n_sequences)
    tokens = chance.integers(0, old.facts.n_vocab, (n_sequences, context + 1)).tolist()
    holdings = [Holding(n, "", tuple(row[:context])) for n, row in enumerate(tokens)]
    began = time.monotonic()
    for batch in _prefill(holdings, old.facts.batch_tokens):
        old.begin(batch)
        old.logits()
    prefill_s = time.monotonic() - began
    fd = os.memfd_create("kv-cost")
    limit = 1 << 40
    fingerprint = old.facts.fingerprint
    written = export(old, holdings, fd, fingerprint=fingerprint, limit_bytes=limit)
    taken = take_over(new, Keeper(), fd, fingerprint=fingerprint)
    os.close(fd)
    if taken.n_sequences != n_sequences:
        raise SystemExit("this model's sequences cannot be handed over")
    last = Batch(
        [row[context] for row in tokens],
        [context] * n_sequences,
        list(range(n_sequences)),
        [True] * n_sequences,
    )
    expected = _decode(old, last).argmax(axis=1)
    began = time.monotonic()
    found = _decode(new, last).argmax(axis=1)
    next_s = time.monotonic() - began
    for backend in (old, new):
        for n in range(n_sequences):
            backend.remove(n)
    agrees = bool((expected == found).all())
    return Cost(prefill_s, written.seconds, taken.seconds, next_s, written.n_bytes, agrees)


def _prefill(holdings: list[Holding], batch_tokens: int) -> Iterator[Batch]:
    """All tokens of all sequences, one sequence after the other, in full batches."""
    entries = [
        (token, position, held.slot, position + 1 == len(held.tokens))
        for held in holdings
        for position, token in enumerate(held.tokens)
    ]
    for start in range(0, len(entries), batch_tokens):
        part = entries[start : start + batch_tokens]
        yield Batch(*(list(column) for column in zip(*part, strict=True)))


def _decode(backend: Backend, batch: Batch) -> Logits:
    backend.begin(batch)
    return backend.logits()


def _row(n_sequences: int, context: int, costs: list[Cost]) -> dict[str, Any]:
    def median(name: str) -> float:
        return statistics.median(getattr(cost, name) for cost in costs)

    names = ("prefill_s", "export_s", "import_s", "next_s", "handover_s")
    return {
        "sequences": n_sequences,
        "context": context,
        "bytes": costs[0].n_bytes,
        **{name: round(median(name), 5) for name in names},
        "ratio": round(median("prefill_s") / median("handover_s"), 2),
        "agrees": all(cost.agrees for cost in costs),
    }


def _line(row: dict[str, Any], *, header: bool) -> str:
    cells = {
        "sequences": str(row["sequences"]),
        "context": str(row["context"]),
        "MiB": f"{row['bytes'] / 2**20:.1f}",
        "prefill s": f"{row['prefill_s']:.3f}",
        "export s": f"{row['export_s']:.3f}",
        "import s": f"{row['import_s']:.3f}",
        "next token s": f"{row['next_s']:.3f}",
        "handed over s": f"{row['handover_s']:.3f}",
        "prefill / handed over": f"{row['ratio']:.1f}",
        "agrees": "yes" if row["agrees"] else "NO",
    }
    line = "  ".join(text.rjust(len(name)) for name, text in cells.items())
    return "\n".join(["  ".join(cells), line]) if header else line


if __name__ == "__main__":
    main()
