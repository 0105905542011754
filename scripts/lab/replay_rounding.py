"""How far a replay in one batch moves log probabilities, by llama.cpp alone.

    python -m scripts.lab.replay_rounding [--model MODEL.gguf] [--texts 8]
                                          [--results tests/chaos/RESULTS.md]

JSON texts of random words are answers whose log probabilities llama.cpp computes token by token,
and once more after each fourth of their tokens in one batch with the prompt. That is done with the
model, and with the same weights unpacked to 32 bits.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gguf

from supervisor import demo_model
from supervisor.bench.words import WORDS
from tests import machine, results
from tests.chaos.report import percentile
from tests.chaos.rounding import Alone
from tests.models.lora import copied

N_CTX = 1024
EVERY = 4
PROMPT = "<|im_start|>user\nDescribe a fox by the sea.<|im_end|>\n<|im_start|>assistant\n"
BANDS = ((-1.0, 0.1), (-4.0, -1.0), (-8.0, -4.0), (-12.0, -8.0), (-99.0, -12.0))
COLUMNS = ("weights", "log probability", "tokens", "moved by: p50", "p99", "most")


def unpacked(model: Path, folder: Path) -> Path:
    """A copy of the model with weights of 32 bits, which have the same values."""
    reader, path = gguf.GGUFReader(model), folder / "unpacked.gguf"
    writer = copied(reader, path)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def text(dice: random.Random) -> str:
    words = dice.choices(WORDS, k=6)
    return json.dumps({"name": words[0], "age": dice.randrange(120), "words": words[1:]})


def moves(model: Path, n_texts: int) -> Iterator[tuple[float, float]]:
    """Each token's log probability, and how far a replay moves it."""
    dice = random.Random(1)
    with Alone(model, N_CTX) as alone:
        prompt = alone.tokens(PROMPT)
        for _ in range(n_texts):
            answer = alone.tokens(text(dice))
            singly = alone.logprobs(prompt, answer, 0)
            for n_known in range(EVERY, len(answer), EVERY):
                replayed = alone.logprobs(prompt, answer, n_known)
                for before, after in zip(singly[n_known:], replayed, strict=True):
                    yield before, abs(after - before)


def rows(weights: str, found: list[tuple[float, float]]) -> list[tuple[str, ...]]:
    told = []
    for low, high in BANDS:
        band = [moved for logprob, moved in found if low <= logprob < high]
        if band:
            figures = (f"{percentile(band, share):.4f}" for share in (0.5, 0.99, 1.0))
            name = f"from {low:.0f}" if high > 0 else f"{low:.0f} to {high:.0f}"
            told.append((weights, name, str(len(band)), *figures))
    return told


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=None, help="else the demo model")
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args(arguments)
    conditions = machine.conditions()
    model = options.model or Path(demo_model.find() or "no demo model")
    with tempfile.TemporaryDirectory() as folder:
        table = [
            row
            for name, path in (("as they are", model), ("32 bits", unpacked(model, Path(folder))))
            for row in rows(name, list(moves(path, options.texts)))
        ]
    for row in table:
        print("|", " | ".join(row), "|")
    if options.results is not None:
        run = results.Run(
            title=f"log probabilities after a replay by llama.cpp alone, {model.name}",
            command=results.spelled("python -m scripts.lab.replay_rounding", arguments),
            conditions=conditions,
        )
        results.append(options.results, run, results.Table(COLUMNS, table))


if __name__ == "__main__":
    main(sys.argv[1:])
