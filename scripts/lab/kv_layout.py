"""Which KV layout suits a CPU: one cache for all sequences, or one stream per sequence?

Plays the engine's loop (decode tokens of running sequences plus prefill chunks within a token
budget) with requests coming and going, in both layouts, alternating, and measures the pieces
beside it: a steady decode step, idle cached sequences, prefix copies, creating the context.
Output lengths are fixed by a seed, so both layouts run the very same steps. Needs llama_cpp and
numpy, and about six minutes at one round.

Running slots begin with contexts restored from a saved state, so that a run starts in mid-flight.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import llama_cpp as lc
import numpy as np

PARTS = ("context", "steady", "idle", "copy", "churn")
FLASH = {"off": 0, "on": 1, "auto": -1}
PREFIX, BATCH, SEED = 200, 512, 7
LENGTHS = (600, 500, 200, 150)  # saved states, longest first: each is cut from the one before
Row = dict[str, Any]
SILENT = lc.llama_log_callback(lambda *_: None)


class Variant(NamedTuple):
    unified: bool
    flash: str
    n_seqs: int
    n_cells: int

    @property
    def name(self) -> str:
        return "unified" if self.unified else "streams"


class Entry(NamedTuple):
    token: int
    pos: int
    seq: int
    wanted: bool


class Context:
    """One llama context. Used by one thread; `close` frees it."""

    states: dict[tuple[int, bool, int], Any] = {}  # noqa: RUF012  (shared on purpose)

    def __init__(self, model: Any, variant: Variant) -> None:
        params = lc.llama_context_default_params()
        params.n_ctx, params.n_seq_max = variant.n_cells, variant.n_seqs
        params.n_batch = params.n_ubatch = BATCH
        params.n_outputs_max = variant.n_seqs
        params.n_threads = params.n_threads_batch = 2
        params.kv_unified, params.flash_attn_type = variant.unified, FLASH[variant.flash]
        self.variant, self.raw = variant, lc.llama_init_from_model(model, params)
        if not self.raw:
            raise RuntimeError(f"no context for {variant}")
        # a saved state fits only contexts with as many streams and the same layout of V
        self.kind = (1 if variant.unified else variant.n_seqs, variant.flash != "off")
        self.memory = lc.llama_get_memory(self.raw)
        self.batch = lc.llama_batch_init(BATCH, 0, 1)
        self.n_vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))

    def close(self) -> None:
        lc.llama_batch_free(self.batch)
        lc.llama_free(self.raw)

    def clear(self) -> None:
        lc.llama_memory_clear(self.memory, False)

    def decode(self, entries: list[Entry]) -> list[int]:
        """The greedy tokens of the wanted entries, in batch order: one `llama_decode`."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for i, entry in enumerate(entries):
            batch.token[i], batch.pos[i], batch.logits[i] = entry.token, entry.pos, entry.wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, entry.seq
        if (code := lc.llama_decode(self.raw, batch)) != 0:
            raise RuntimeError(f"llama_decode returned {code} in {self.variant}")
        rows = sum(entry.wanted for entry in entries)
        logits = lc.llama_get_logits(self.raw)  # also waits for the computation
        if not rows:
            return []
        return np.ctypeslib.as_array(logits, (rows, self.n_vocab)).argmax(axis=1).tolist()

    def fill(self, seq: int, length: int) -> None:
        """Give `seq` its own cells with `length` tokens, without paying for a prefill each time."""
        key = (*self.kind, length)
        if key not in self.states:
            self._save_states()
        if not lc.llama_state_seq_set_data(self.raw, self.states[key], len(self.states[key]), seq):
            raise RuntimeError(f"state of {key} not restored in {self.variant}")

    def _save_states(self) -> None:
        self.clear()
        tokens = np.random.default_rng(SEED).integers(1000, 40000, LENGTHS[0]).tolist()
        for start in range(0, LENGTHS[0], 300):
            self.decode([Entry(tokens[p], p, 0, False) for p in range(start, start + 300)])
        for length in LENGTHS:
            lc.llama_memory_seq_rm(self.memory, 0, length, -1)
            state = (ctypes.c_uint8 * lc.llama_state_seq_get_size(self.raw, 0))()
            lc.llama_state_seq_get_data(self.raw, state, len(state), 0)
            self.states[*self.kind, length] = state
        self.clear()

    def steps_ms(self, n_seqs: int, pos: int, n_steps: int) -> list[float]:
        """Times of decode steps of sequences 0..n_seqs-1 from `pos` on; then cuts them back."""
        times = []
        for p in range(pos, pos + n_steps):
            start = time.perf_counter()
            self.decode([Entry(2000 + seq, p, seq, True) for seq in range(n_seqs)])
            times.append((time.perf_counter() - start) * 1000)
        for seq in range(n_seqs):
            lc.llama_memory_seq_rm(self.memory, seq, pos, -1)
        return times[1:]  # the first may build a new graph


def summary(times: list[float]) -> Row:
    return {"median_ms": round(float(np.median(times)), 2), "min_ms": round(min(times), 2)}


def load(path: str) -> Any:
    lc.llama_backend_init()
    lc.llama_log_set(SILENT, None)
    model = lc.llama_model_load_from_file(path.encode(), lc.llama_model_default_params())
    if not model:
        raise SystemExit(f"cannot load {path}")
    return model


def rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def probe(path: str, unified: bool, cells: int) -> Row:
    """Create one context of ten sequences in this fresh process."""
    model, before, start = load(path), rss_mib(), time.perf_counter()
    context = Context(model, Variant(unified, "on", 10, cells))
    took_s = time.perf_counter() - start
    return {
        "layout": context.variant.name,
        "cells": lc.llama_n_ctx(context.raw),
        "create_s": round(took_s, 3),
        "rss_mib": round(rss_mib() - before),
    }


def part_context(path: str, rounds: int) -> Iterator[Row]:
    for number, cells, turn in product(range(2 * rounds), (8192, 16384, 40960), (0, 1)):
        unified = (number + turn) % 2 == 0
        command = [sys.executable, __file__, "--model", path]
        command += ["--probe", str(int(unified)), str(cells)]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        yield json.loads(done.stdout)


def part_steady(model: Any, rounds: int) -> Iterator[Row]:
    contexts = [
        Context(model, Variant(unified, flash, 16, 16 * 1024))
        for flash, unified in product(FLASH, (True, False))
    ]
    for length, n_seqs in product((150, 600), (1, 8, 16)):
        times: dict[Variant, list[float]] = {context.variant: [] for context in contexts}
        for context in contexts:
            context.clear()
            for seq in range(n_seqs):
                context.fill(seq, length)
        for _, context in product(range(rounds + 1), contexts):
            times[context.variant] += context.steps_ms(n_seqs, length, 5)
        for variant, found in times.items():
            yield {
                "layout": variant.name,
                "flash": variant.flash,
                "seqs": n_seqs,
                "tokens": length,
                **summary(found),
            }
    for context in contexts:
        context.close()


def part_idle(model: Any, rounds: int) -> Iterator[Row]:
    contexts = [
        Context(model, Variant(unified, flash, 25, 25 * 1024))
        for flash, unified in (("on", True), ("on", False), ("off", True))
    ]
    for n_seqs, n_idle in product((1, 8), (0, 4, 8, 16)):
        times: dict[Variant, list[float]] = {context.variant: [] for context in contexts}
        for context in contexts:
            context.clear()
            for idle in range(n_idle):
                context.fill(8 + idle, 500)
            for seq in range(n_seqs):
                context.fill(seq, 150)
        for _, context in product(range(rounds + 1), contexts):
            times[context.variant] += context.steps_ms(n_seqs, 150, 5)
        for variant, found in times.items():
            yield {
                "layout": variant.name,
                "flash": variant.flash,
                "seqs": n_seqs,
                "tokens": 150,
                "idle_of_500": n_idle,
                **summary(found),
            }
    for context in contexts:
        context.close()


def part_copy(model: Any, rounds: int) -> Iterator[Row]:
    """What seq_cp adds to the step that follows; a stream is copied lazily, at its next decode."""
    for per_seq, unified, length in product((1024, 4096), (True, False), (200, 600)):
        context = Context(model, Variant(unified, "on", 8, 8 * per_seq))
        calls, first, later = [], [], []
        context.fill(0, length)
        for _ in range(4 * rounds + 1):
            start = time.perf_counter()
            if unified:
                lc.llama_memory_seq_cp(context.memory, 0, 1, 0, length - 1)
            else:
                lc.llama_memory_seq_cp(context.memory, 0, 1, -1, -1)  # a range aborts the process
                lc.llama_memory_seq_rm(context.memory, 1, length - 1, -1)
            calls.append((time.perf_counter() - start) * 1000)
            for pos, times in ((length - 1, first), (length, later)):
                start = time.perf_counter()
                context.decode([Entry(2000, pos, 1, True)])
                times.append((time.perf_counter() - start) * 1000)
            lc.llama_memory_seq_rm(context.memory, 1, -1, -1)
        added = np.median(np.subtract(first, later)[1:])
        yield {
            "layout": context.variant.name,
            "cells_per_seq": per_seq,
            "prefix": length,
            "call_ms": round(float(np.median(calls)), 3),
            "added_ms": round(float(added), 2),
        }
        context.close()


@dataclass
class Running:
    pos: int
    left: int
    prompt: list[int] = field(default_factory=list)
    token: int = 2000
    since: float = field(default_factory=time.perf_counter)
    started: bool = False


def arrivals(context: Context, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """(tokens to prefill, tokens shared): lengths log-uniform in 30..800, four in ten share."""
    while True:
        length = int(np.exp(rng.uniform(np.log(30), np.log(800))))
        yield (length, 0) if length <= PREFIX or rng.random() > 0.4 else (length - PREFIX, PREFIX)


def churn(context: Context, slots: int, budget: int, n_idle: int, work: int) -> Row:
    """The closed loop until `work` tokens went through; the prefix is kept in sequence `slots`."""
    rng = np.random.default_rng(SEED)
    queue, memory, unified = arrivals(context, rng), context.memory, context.variant.unified
    context.clear()
    context.fill(slots, PREFIX)
    for idle in range(n_idle):
        context.fill(slots + 1 + idle, 500)
    live: dict[int, Running] = {}
    for seq in range(slots):
        context.fill(seq, length := (150, 600)[seq % 2])
        live[seq] = Running(length, int(rng.integers(1, 129)), started=True)
    gaps, firsts, mixed, plain, done, made, n_finished = [], [], [], [], 0, 0, 0
    begin = time.perf_counter()
    for running in live.values():
        running.since = begin
    while done < work:
        for seq in sorted(set(range(slots)) - set(live)):
            fresh, shared = next(queue)
            if shared:
                span = (0, shared) if unified else (-1, -1)
                lc.llama_memory_seq_cp(memory, slots, seq, *span)
            prompt = rng.integers(1000, 40000, fresh).tolist()
            live[seq] = Running(shared, int(rng.integers(16, 129)), prompt)
        entries = [Entry(r.token, r.pos, s, True) for s, r in live.items() if not r.prompt]
        n_decoding = len(entries)
        for seq, r in sorted(live.items(), key=lambda item: item[1].since):
            chunk = r.prompt[: budget - len(entries)]
            end = len(r.prompt) - 1
            entries += [Entry(t, r.pos + i, seq, i == end) for i, t in enumerate(chunk)]
            r.prompt, r.pos = r.prompt[len(chunk) :], r.pos + len(chunk)
        entries.sort(key=lambda entry: entry.seq)  # streams: only rising neighbours share a pass
        start = time.perf_counter()
        tokens = context.decode(entries)
        now = time.perf_counter()
        if n_decoding:
            (plain if n_decoding == len(entries) else mixed).append((now - start) * 1000)
        decoded = {s for s, r in live.items() if r.started}
        for seq, token in zip([e.seq for e in entries if e.wanted], tokens, strict=True):
            r = live[seq]
            (gaps if r.started else firsts).append((now - r.since) * 1000)
            r.pos, r.left, r.token, r.since = r.pos + (seq in decoded), r.left - 1, token, now
            r.started, made = True, made + 1
            if r.left <= 0:
                lc.llama_memory_seq_rm(memory, seq, -1, -1)
                del live[seq]
                n_finished += 1
        done += len(entries)
    took_s = time.perf_counter() - begin
    return {
        "made_tok_s": round(made / took_s, 1),
        "all_tok_s": round(done / took_s, 1),
        "itl_p50_ms": round(float(np.percentile(gaps, 50))),
        "itl_p99_ms": round(float(np.percentile(gaps, 99))),
        "stall_max_ms": round(max(mixed)),
        "mixed_p50_ms": round(float(np.median(mixed))),
        "plain_p50_ms": round(float(np.median(plain))) if plain else None,
        "ttft_p50_ms": round(float(np.median(firsts))) if firsts else None,
        "n_steps": len(mixed) + len(plain),
        "finished": n_finished,
    }


def part_churn(model: Any, rounds: int, work: int) -> Iterator[Row]:
    """(slots, budget, flash, idle sequences, cells in all or 0 for 1,024 a sequence)"""
    cases = [(slots, budget, "on", 0, 0) for slots, budget in product((8, 16), (64, 128, 256, 512))]
    cases += [
        (8, 128, "off", 0, 0),
        (16, 128, "off", 0, 0),
        (8, 128, "on", 8, 0),
        (8, 128, "on", 0, 40960),
    ]
    for number, case, turn in product(range(rounds), cases, (0, 1)):
        slots, budget, flash, n_idle, cells = case
        n_seqs = slots + 1 + n_idle
        unified = (number + turn) % 2 == 0  # the other one first in the next round
        context = Context(model, Variant(unified, flash, n_seqs, cells or n_seqs * 1024))
        row = churn(context, slots, budget, n_idle, work)
        context.close()
        yield {
            "layout": context.variant.name,
            "slots": slots,
            "budget": budget,
            "flash": flash,
            "idle": n_idle,
            "cells": context.variant.n_cells,
            **row,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", type=int, default=1200, help="tokens a churn run processes")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", type=Path, help="write all rows there")
    parser.add_argument("--probe", nargs=2, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.probe:
        print(json.dumps(probe(args.model, bool(args.probe[0]), args.probe[1])))
        return
    found: list[Row] = []
    model, begin = load(args.model), time.perf_counter()
    parts = {
        "context": lambda: part_context(args.model, args.rounds),
        "steady": lambda: part_steady(model, args.rounds),
        "idle": lambda: part_idle(model, args.rounds),
        "copy": lambda: part_copy(model, args.rounds),
        "churn": lambda: part_churn(model, args.rounds, args.work),
    }
    for part in args.parts:
        for row in parts[part]():
            found.append({"part": part, **row, "load": round(os.getloadavg()[0], 2)})
            took_s = time.perf_counter() - begin
            print(f"{took_s:4.0f}s", *(f"{k}={v}" for k, v in found[-1].items()), flush=True)
            if args.json:  # each time, so that a run cut short keeps its rows
                args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
