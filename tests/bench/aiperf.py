"""Plays a plain scenario with AIPerf (PyPI: aiperf), a load generator of others.

It has an environment of its own, since it pins other versions of pyzmq and psutil. Its prompts are
cut from its own text with the model's tokenizer, which is written from the GGUF file. Percentiles
are AIPerf's: of the time to the first token, and of the time between chunks.
"""

import asyncio
import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import gguf
from msgspec import structs

from gpufc.errors import StartError
from supervisor.bench.client import Target, named
from supervisor.bench.figures import Figures, figures
from supervisor.bench.runner import Bounds
from supervisor.bench.workload import Workload
from tests.bench.scenarios import RATE, Metrics, Play, Played

LONGEST_S = 900.0
_CONTROL = gguf.TokenType.CONTROL


def play(program: Path, model: Path) -> Play:
    """A scenario's load from `program`, with the vocabulary of `model`, one of byte-level BPE."""

    async def played(target: Target, workload: Workload, bounds: Bounds, n_ctx: int) -> Played:
        with tempfile.TemporaryDirectory(prefix="ga", dir="/tmp") as name:
            folder = Path(name)
            write_tokenizer(model, folder / "tokenizer")
            known = await named(target)
            command = [str(program), *arguments(known, workload, bounds, folder)]
            await _run(command, folder)
            found = json.loads((folder / "out" / "profile_export_aiperf.json").read_text())
        return metrics(found), _figures(found)

    return played


def arguments(target: Target, workload: Workload, bounds: Bounds, folder: Path) -> list[str]:
    """AIPerf's arguments for a plain workload, with llama.cpp's sampling."""
    n_requests = bounds.requests or bounds.streams
    sampling = ("temperature:0.8", "top_p:0.95", "top_k:40", "min_p:0.05", "ignore_eos:true")
    return [
        *("profile", "--url", target.url, "--model", target.model or ""),
        *("--endpoint-type", "chat", "--streaming", "--tokenizer", str(folder / "tokenizer")),
        *("--concurrency", str(bounds.streams), "--request-count", str(n_requests)),
        *("--num-dataset-entries", str(n_requests + 1), "--warmup-request-count", "1"),
        *("--isl", str(workload.prompt_tokens), "--isl-stddev", "0"),
        *("--osl", str(workload.output_tokens), "--osl-stddev", "0"),
        *(word for pair in sampling for word in ("--extra-inputs", pair)),
        *("--use-server-token-count", "--random-seed", str(workload.seed)),
        *("--no-gpu-telemetry", "--no-server-metrics", "--ui", "none"),
        *("--artifact-dir", str(folder / "out")),
    ]


def metrics(found: dict[str, Any]) -> Metrics:
    """The figures that our own load generator has as well, of an exported profile."""
    row = {RATE: float(found["output_token_throughput"]["avg"])}
    for name, key in (("first_token", "time_to_first_token"), ("gap", "inter_chunk_latency")):
        row |= {f"{name}_{k}_ms": float(found[key][k]) for k in ("p50", "p99", "max")}
    row["failed"] = float(found.get("error_request_count", {}).get("avg", 0.0))
    return row


def write_tokenizer(model: Path, folder: Path) -> None:
    """The byte-level BPE vocabulary of a GGUF file, as Hugging Face's tokenizers read it."""
    fields = gguf.GGUFReader(model).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = fields["tokenizer.ggml.merges"].contents()
    added = [
        {"id": number, "content": token, "special": True, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False}
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == _CONTROL
    ]  # fmt: skip
    bytes_of = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True
    }  # fmt: skip
    vocabulary = {token: number for number, token in enumerate(tokens)}
    whole = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": bytes_of,
        "decoder": bytes_of,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))


async def _run(command: list[str], folder: Path) -> None:
    """Raises `StartError` with its last words."""
    log = folder / "log"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stdout=out, stderr=out, start_new_session=True,
            env=os.environ | {"HOME": str(folder)},
        )  # fmt: skip
        try:
            async with asyncio.timeout(LONGEST_S):
                await process.wait()
        except TimeoutError:
            pass
        finally:
            if process.returncode is None:  # it has processes of its own
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
    if code := process.returncode:
        last = log.read_text("utf-8", "replace").strip().splitlines()[-3:]
        raise StartError(f"{command[0]} failed with {code}: {' / '.join(last)}")


def _figures(found: dict[str, Any]) -> Figures:
    """Only the number of tokens is known of single requests."""
    n_tokens = round(found["total_output_tokens"]["avg"])
    return structs.replace(figures([]), output_tokens=n_tokens)
