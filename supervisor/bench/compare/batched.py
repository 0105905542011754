"""llama.cpp's own batched benchmark: what the kernels give without sampling and without HTTP."""

import json
import subprocess
from pathlib import Path

from gpufc.errors import StartError
from supervisor.bench.compare.scenarios import Scenario
from supervisor.bench.compare.servers import Setting

TIMEOUT_S = 600.0


def command(program: Path, setting: Setting, scenario: Scenario) -> list[str]:
    """Prompts and answers as long as the scenario's, and as many at once."""
    streams, workload = scenario.bounds.streams, scenario.workload
    cells = streams * (workload.prompt_tokens + workload.output_tokens)
    made = [str(program), "--model", str(setting.model), "--ctx-size", str(cells)]
    made += ["--threads", str(setting.n_threads), "--flash-attn", setting.flash_attention]
    if setting.unified is not None:
        made.append("--kv-unified" if setting.unified else "--no-kv-unified")
    made += ["-npp", str(workload.prompt_tokens), "-ntg", str(workload.output_tokens)]
    return [*made, "-npl", str(streams), "--output-format", "jsonl"]


def decode_rate(lines: str) -> float | None:
    """Generated tokens per second, of what it prints."""
    rows = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    return float(rows[-1]["speed_tg"]) if rows else None


def measure(program: Path, setting: Setting, scenario: Scenario) -> float:
    """Run it; tokens per second. Raises `StartError`."""
    try:
        done = subprocess.run(
            command(program, setting, scenario),
            capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as err:
        raise StartError(f"{program.name} failed: {err}") from err
    rate = decode_rate(done.stdout)
    if rate is None:
        raise StartError(f"{program.name} said nothing of its speed")
    return rate
