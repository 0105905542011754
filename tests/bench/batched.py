"""llama.cpp's own batched benchmark: the kernels' rates without sampling and HTTP."""

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

from gpufc.errors import StartError
from tests.bench.scenarios import Scenario
from tests.bench.servers import Setting

TIMEOUT_S = 600.0


class Rates(NamedTuple):
    """Generated tokens per second: while all streams decode, and with the time of their prompts,
    which a service's rate includes."""

    decoding: float
    with_prompts: float


def command(program: Path, setting: Setting, scenario: Scenario) -> list[str]:
    """The command for a scenario's streams, prompts and answers. An answer's first token counts as
    its prompt's. Every size runs twice, because the first run includes loading kernels."""
    streams, workload = scenario.bounds.streams, scenario.workload
    cells = streams * (workload.prompt_tokens + workload.output_tokens)
    made = [str(program), "--model", str(setting.model), "--ctx-size", str(cells)]
    made += [*setting.thread_options, "--flash-attn", setting.flash_attention]
    if setting.unified is not None:
        made.append("--kv-unified" if setting.unified else "--no-kv-unified")
    made += ["-npp", str(workload.prompt_tokens), "-ntg", str(max(1, workload.output_tokens - 1))]
    return [*made, "-npl", f"{streams},{streams}", "--output-format", "jsonl"]


def rates(lines: str) -> Rates | None:
    """The rates of the last run in the output."""
    rows = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    if not rows:
        return None
    last = rows[-1]
    return Rates(float(last["speed_tg"]), last["pl"] * (last["tg"] + 1) / last["t"])


def measure(program: Path, setting: Setting, scenario: Scenario) -> Rates:
    """Run the benchmark. Raises `StartError`."""
    try:
        done = subprocess.run(
            command(program, setting, scenario),
            capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as err:
        raise StartError(f"{program.name} failed: {err}") from err
    found = rates(done.stdout)
    if found is None:
        raise StartError(f"{program.name} said nothing of its speed")
    return found
