"""llama.cpp's own batched benchmark: what the kernels give without sampling and without HTTP."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from gpufc.errors import StartError
from supervisor.bench.compare.servers import Setting

TIMEOUT_S = 600.0


def command(
    program: Path, setting: Setting, streams: Sequence[int], prompt: int, output: int
) -> list[str]:
    """Prompts and answers of these lengths, so many at once."""
    cells = max(streams) * (prompt + output)
    made = [str(program), "--model", str(setting.model), "--ctx-size", str(cells)]
    made += ["--threads", str(setting.n_threads), "--flash-attn", setting.flash_attention]
    made += ["-npp", str(prompt), "-ntg", str(output), "-npl", ",".join(map(str, streams))]
    return [*made, "--output-format", "jsonl"]


def decode_rates(lines: str) -> dict[int, float]:
    """Generated tokens per second for each number of streams, of what it prints."""
    rates = {}
    for line in lines.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            rates[int(row["pl"])] = float(row["speed_tg"])
    return rates


def measure(
    program: Path,
    setting: Setting,
    streams: Sequence[int] = (1, 8, 16),
    prompt: int = 128,
    output: int = 128,
) -> dict[int, float]:
    """Run it. Raises `StartError`."""
    try:
        done = subprocess.run(
            command(program, setting, streams, prompt, output),
            capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as err:
        raise StartError(f"{program.name} failed: {err}") from err
    return decode_rates(done.stdout)
