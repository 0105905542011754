"""Prompts against the worker's tokenizer, under the pre-tokenizers with large regular expressions.

Each pre-tokenizer has a process with the prepare threads' stack; its death is what is looked for.
Where a text is short enough, its tokens are compared with those that llama.cpp gives to the whole.
"""

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

from msgspec import Struct

from engine_worker.prompts.apart import TokenizerProcess
from engine_worker.prompts.pieces import MAX_PIECE_CHARS, is_safe
from engine_worker.prompts.service import STACK_BYTES
from engine_worker.prompts.tokenizer import Tokenizer, TooManyTokens
from gpufc.errors import InvalidRequest
from tests.conftest import installed_model
from tests.engine_worker.prompts.vocabularies import (
    LARGE,
    MODULE,
    backend_of,
    load_vocabulary,
    write_vocabulary,
)
from tests.fuzz.hostile_texts import text

FULL_PROMPTS = 10_000
LIMIT = 2 * 8192
"""Tokens that are counted of a prompt where the context has 8,192."""


class Lengths(Struct, frozen=True):
    least: int
    most: int


class Tally(Struct):
    """What became of one pre-tokenizer's prompts. `exit_code` is 0 if its process lived."""

    pre: str
    outcomes: Counter[str]
    slowest_s: float = 0.0
    slowest_seed: int = 0
    exit_code: int | None = 0


def run(pre: str, model: Path, seeds: range, lengths: Lengths) -> Tally:
    """Tokenize the texts of these seeds in a process of their own."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(pre, model, seeds, lengths, sender))
    process.start()
    sender.close()
    tally = Tally(pre, Counter())
    try:
        while True:
            seed, outcome, seconds = receiver.recv()
            tally.outcomes[outcome] += 1
            if seconds > tally.slowest_s:
                tally.slowest_s, tally.slowest_seed = seconds, seed
    except EOFError:
        process.join()
    tally.exit_code = process.exitcode
    return tally


def _serve(pre: str, model: Path, seeds: range, lengths: Lengths, sender: Connection) -> None:
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=_tokenize, args=(pre, model, seeds, lengths, sender))
    thread.start()
    thread.join()


def _tokenize(pre: str, model: Path, seeds: range, lengths: Lengths, sender: Connection) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_vocabulary(model, Path(folder) / "vocabulary.gguf", pre=pre)
        vocabulary = load_vocabulary(path)
        special = [token.text for token in vocabulary.special_tokens().tokens]
        tokenizer, apart = Tokenizer(backend_of(vocabulary)), TokenizerProcess(MODULE, str(path))
        for seed in seeds:
            prompt = text(seed, special, lengths.least, lengths.most)
            began = time.monotonic()
            try:
                found = tokenizer.tokenize(prompt, parse_special=True, limit=LIMIT, apart=apart)
                outcome = "tokenized"
                if len(prompt) <= MAX_PIECE_CHARS and is_safe(prompt):
                    whole = vocabulary.tokenize(prompt, add_special=False, parse_special=True)
                    outcome = "equal" if found == whole else f"different seed={seed}"
            except TooManyTokens:
                outcome = "refused by length"
            except InvalidRequest:
                outcome = "refused for a stretch"
            sender.send((seed, outcome, time.monotonic() - began))
        apart.close()
    sender.close()


def is_sound(tally: Tally) -> bool:
    """Whether no process died and no tokens differed."""
    return tally.exit_code == 0 and not any(
        outcome.startswith("different") for outcome in tally.outcomes
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"{FULL_PROMPTS} prompts, to 4 MiB")
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    model = installed_model()
    if model is None:
        parser.error("the demo model is not installed")
    each = -(-(FULL_PROMPTS if options.full else options.prompts) // len(LARGE))
    lengths = Lengths(1 << 20, 4 << 20) if options.full else Lengths(1_000, 200_000)
    tallies = []
    for number, pre in enumerate(LARGE):
        start = options.seed + number * each
        tally = run(pre, model, range(start, start + each), lengths)
        tallies.append(tally)
        outcomes = ", ".join(f"{count} {name}" for name, count in sorted(tally.outcomes.items()))
        print(
            f"{pre}: {outcomes}; slowest {tally.slowest_s:.2f} s (seed {tally.slowest_seed});"
            f" exit code {tally.exit_code}",
            flush=True,
        )
    return 0 if all(map(is_sound, tallies)) else 1


if __name__ == "__main__":
    sys.exit(main())
