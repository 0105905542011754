"""A step and a prompt with and without flash attention on a CPU, llama.cpp alone.

    python -m scripts.lab.flash_attention MODEL.gguf --sequences 8 --depth 400 [--threads N]

One process has a context of each kind, all with a KV stream for each sequence, and computes with
them in turn, so that other processes disturb all alike. Prints for each kind the median
milliseconds of a step with one token of each sequence behind `--depth` tokens, and the tokens per
second of the fastest prompt of that length. Worker processes have huge pages by
`GLIBC_TUNABLES=glibc.malloc.hugetlb=1`.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import llama_cpp.llama_cpp as lc

BATCH_TOKENS = 512
TURN = 10
"""Steps of one context before the next one's turn."""


class Kind(NamedTuple):
    """A context's flash attention and the ggml type of its keys and values."""

    flash: int
    cell_type: int


KINDS = {
    "off, f16": Kind(lc.LLAMA_FLASH_ATTN_TYPE_DISABLED, 1),
    "on, f16": Kind(lc.LLAMA_FLASH_ATTN_TYPE_ENABLED, 1),
    "on, bf16": Kind(lc.LLAMA_FLASH_ATTN_TYPE_ENABLED, 30),
    "on, f32": Kind(lc.LLAMA_FLASH_ATTN_TYPE_ENABLED, 0),
}


class Measured:
    """One context. `steps_s` and `prompt_rates` are its measurements."""

    def __init__(self, model: lc.llama_model_p, kind: Kind, options: argparse.Namespace) -> None:
        params = lc.llama_context_default_params()
        params.n_ctx, params.n_seq_max = options.n_ctx * options.sequences, options.sequences
        params.n_batch = params.n_ubatch = BATCH_TOKENS
        params.kv_unified = False
        params.n_threads = params.n_threads_batch = options.threads
        params.flash_attn_type = kind.flash
        params.type_k = params.type_v = kind.cell_type
        self._context = lc.llama_init_from_model(model, params)
        self._batch = lc.llama_batch_init(BATCH_TOKENS, 0, 1)
        self.steps_s: list[float] = []
        self.prompt_rates: list[float] = []

    def read(self, sequence: int, n_tokens: int) -> None:
        """Compute a prompt in a sequence without cells."""
        lc.llama_memory_seq_rm(lc.llama_get_memory(self._context), sequence, -1, -1)
        began = time.perf_counter()
        for start in range(0, n_tokens, BATCH_TOKENS):
            places = range(start, min(start + BATCH_TOKENS, n_tokens))
            self._decode([(place, sequence, place == n_tokens - 1) for place in places])
        self.prompt_rates.append(n_tokens / (time.perf_counter() - began))

    def step(self, position: int, n_sequences: int) -> None:
        """Compute one token of each sequence."""
        began = time.perf_counter()
        self._decode([(position, sequence, True) for sequence in range(n_sequences)])
        self.steps_s.append(time.perf_counter() - began)

    def _decode(self, tokens: Sequence[tuple[int, int, bool]]) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for at, (position, sequence, is_wanted) in enumerate(tokens):
            batch.token[at], batch.pos[at] = 100 + position * 7 % 20_000, position
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
            batch.logits[at] = is_wanted
        code = lc.llama_decode(self._context, batch)
        if code != 0:
            raise SystemExit(f"llama_decode returned {code}")


def main() -> None:
    options = _options()
    quiet = lc.llama_log_callback(lambda _level, _text, _: None)
    lc.llama_log_set(quiet, None)
    params = lc.llama_model_default_params()
    params.n_gpu_layers = 0
    model = lc.llama_model_load_from_file(str(options.model).encode(), params)
    contexts = {name: Measured(model, KINDS[name], options) for name in options.kinds}
    for _ in range(options.prompts):
        for one in contexts.values():
            one.read(0, options.depth)
    for one in contexts.values():
        for sequence in range(1, options.sequences):
            one.read(sequence, options.depth)
    for start in range(0, options.steps, TURN):
        for one in contexts.values():
            for at in range(start, start + TURN):
                one.step(options.depth + at, options.sequences)
    print(f"{options.threads} threads, {options.sequences} sequences of {options.depth} tokens")
    for name, one in contexts.items():
        step_ms = median(one.steps_s) * 1000
        print(f"  {name:10}{step_ms:8.2f} ms a step{max(one.prompt_rates):8.0f} tok/s of a prompt")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("model", type=Path)
    add("--sequences", type=int, default=1)
    add("--depth", type=int, default=400, help="tokens of each sequence")
    add("--n-ctx", type=int, default=2048)
    add("--threads", type=int, default=2)
    add("--steps", type=int, default=60)
    add("--prompts", type=int, default=3, help="how often the prompt is computed")
    add("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
