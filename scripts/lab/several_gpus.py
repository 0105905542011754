"""One model on several GPUs: its place, its answers and its rate under each way to spread it.

    python -m scripts.lab.several_gpus MODEL.gguf --json OUT.json [--part places|death|figures]

- *places*: one GPU, layers, rows and shares of 3 to 1. Each way starts a service, asks greedy
  questions one by one, and then 64 streams at once. In the last one each GPU may be used for less
  than the model takes, so that it has to be placed over all. Answers are compared with those of
  one GPU; where they part, the distance of the two best tokens there says whether it was a near
  tie.
- *death*: two replicas, one on each GPU. One is killed under load: the memory of both GPUs over the
  next seconds, and whether the other worker went on.
- *figures*: the front's figures of each GPU, and the lanes that a control server gets, beside
  `nvidia-smi` in the same second.

Without a GPU everything runs on the CPU, to try the script.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from supervisor.bench import runner
from supervisor.bench.client import Api, Target
from supervisor.bench.figures import figures
from supervisor.bench.runner import Bounds
from supervisor.bench.workload import Workload
from supervisor.devices.monitor import default_monitor
from supervisor.fabric.devices import report
from tests.service import Service, service

WAYS: dict[str, dict[str, str]] = {
    "one": {"devices": "CUDA0"},
    "layer": {"split_mode": "layer"},
    "row": {"split_mode": "row"},
    "3,1": {"tensor_split": "3,1"},
}
REPLICAS = {"replicas": "2", "devices": "CUDA0;CUDA1"}
PROMPTS = tuple(
    f"{number}. Here is a short story about {topic}. Once upon a time"
    for number, topic in enumerate(("a fox", "a train", "the sea", "bread", "a clock", "winter"))
)
N_TOKENS = 48
MIB = 1 << 20
QUERY = "index,memory.used,utilization.gpu,temperature.gpu,power.draw,power.limit,clocks.sm"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=12)
    args = parser.parse_args()
    document: dict[str, Any] = {"model": args.model.name, "gpus": smi("index,name,memory.total")}
    for part in args.part or PARTS:
        print(f"== {part}", flush=True)
        try:
            document[part] = PARTS[part](args)
        except Exception as err:  # the other parts are worth having
            document[part] = {"error": f"{type(err).__name__}: {err}"}
            print(document[part]["error"], flush=True)
        args.json.write_text(json.dumps(document, indent=1))


# ways to spread a model


def places(args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    # less than the model takes on one GPU: it has to be placed over both
    limit = str(round(0.9 * args.model.stat().st_size))
    for name, keys in (WAYS | {"limited": {"device_memory_limit_bytes": limit}}).items():
        try:
            found[name] = place(args, keys)
            found[name]["against one"] = compared(found["one"], found[name])
        except (AssertionError, OSError, KeyError, subprocess.SubprocessError) as err:
            found[name] = {"error": str(err)[-800:]}
        told = {key: value for key, value in found[name].items() if key != "answers"}
        print(name, json.dumps(told), flush=True)
    return found


def place(args: argparse.Namespace, keys: dict[str, str]) -> dict[str, Any]:
    before = memory()
    with running(args, keys) as one:
        row, loaded = one.worker(), memory()
        answers = [asked(one.url, prompt) for prompt in PROMPTS]
        rates = [rate(one.url, args.streams, number) for number in range(2)]
        models = one.status()["models"]
    return {
        "n_gpu_layers": row["n_gpu_layers"],
        "loaded_in_s": row["loaded_in_s"],
        "reckoned_device_mib": [model.get("device_bytes", 0) / MIB for model in models],
        "taken_mib": [after - was for after, was in zip(loaded, before, strict=True)],
        "tokens_per_s": rates,
        "answers": answers,
    }


def compared(one: dict[str, Any], other: dict[str, Any]) -> list[dict[str, Any]]:
    """For each prompt the tokens until the answers part, and how near the two best tokens were."""
    rows = []
    for mine, theirs in zip(one["answers"], other["answers"], strict=True):
        pairs = list(zip(mine["tokens"], theirs["tokens"], strict=False))
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        row: dict[str, Any] = {"equal_tokens": len(pairs) if at is None else at}
        if at is not None:
            best = sorted(mine["top"][at].values(), reverse=True)
            row |= {"distance": best[0] - best[1], "tokens": pairs[at]}
        rows.append(row)
    return rows


def asked(url: str, prompt: str) -> dict[str, Any]:
    body = {"prompt": prompt, "max_tokens": N_TOKENS, "temperature": 0, "logprobs": 2}
    answer = post(url, body | {"cache_prompt": False, "ignore_eos": True})["choices"][0]
    found = answer["logprobs"]
    return {"text": answer["text"], "tokens": found["tokens"], "top": found["top_logprobs"]}


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        read: dict[str, Any] = json.load(response)
        return read


def rate(url: str, n_streams: int, seed: int) -> float:
    """Output tokens a second of streams that all decode most of the time."""
    workload = Workload(prompt_tokens=64, output_tokens=96, seed=seed + 1)
    bounds = Bounds(streams=n_streams, requests=2 * n_streams)
    target = Target(url=url, api=Api.COMPLETIONS)
    found = figures(asyncio.run(runner.run(target, workload, bounds)).outcomes)
    if found.succeeded != found.requests:
        raise OSError(f"{found.requests - found.succeeded} requests failed: {found.errors}")
    return found.output_tokens_per_s


# a death


def death(args: argparse.Namespace) -> dict[str, Any]:
    before = memory()
    with running(args, REPLICAS, n_workers=2) as one:
        rows = one.status()["workers"]
        found: dict[str, Any] = {
            "before_mib": before,
            "loaded_mib": memory(),
            "processes": smi("pid,gpu_uuid,used_memory", "compute-apps"),
            "workers": [(row["name"], row["pid"], row["epoch"]) for row in rows],
        }
        stop = threading.Event()
        load = threading.Thread(target=lambda: keep_busy(one.url, args.streams, stop), daemon=True)
        load.start()
        time.sleep(2)
        began, samples, now = time.monotonic(), [], 0.0
        os.kill(rows[0]["pid"], signal.SIGKILL)
        while now < 6:
            now = time.monotonic() - began
            samples.append((round(now, 3), memory()))
            time.sleep(0.01)
        stop.set()
        load.join(60)
        after = one.status()
        found["samples"] = samples[:: max(1, len(samples) // 120)]
        found["least_mib"] = [min(one[1][gpu] for one in samples) for gpu in range(len(before))]
        found["most_mib"] = [max(one[1][gpu] for one in samples) for gpu in range(len(before))]
        found["workers after"] = [
            (row["name"], row["pid"], row["epoch"]) for row in after["workers"]
        ]
        found["requests"] = {
            key: after["requests"][key] for key in ("lost_total", "failed_total", "replayed_total")
        }
        found["resume_gap_s"] = after["latency"]["resume_gap_seconds"]
    found["ended_mib"] = memory()
    print(json.dumps({k: v for k, v in found.items() if k != "samples"}), flush=True)
    return found


def keep_busy(url: str, n_streams: int, stop: threading.Event) -> None:
    seed = 100
    while not stop.is_set():
        rate(url, n_streams, seed)
        seed += 1


# figures beside nvidia-smi


def beside_smi(args: argparse.Namespace) -> dict[str, Any]:
    monitor, rows = default_monitor(), []
    monitor.start()
    with running(args, REPLICAS, n_workers=2) as one:
        stop = threading.Event()
        load = threading.Thread(target=lambda: keep_busy(one.url, args.streams, stop), daemon=True)
        load.start()
        for _ in range(args.seconds):
            time.sleep(1)
            ours, theirs = one.status()["devices"], smi(QUERY)
            lanes = msgspec.to_builtins(report(monitor.snapshot()).devices)
            rows.append({"ours": [shown(device) for device in ours], "smi": theirs, "lanes": lanes})
        stop.set()
        load.join(60)
    monitor.stop()
    for row in rows[-3:]:
        print(json.dumps(row, default=str), flush=True)
    return {"rows": rows, "query": QUERY}


def shown(device: dict[str, Any]) -> list[Any]:
    """The same figures as `QUERY`, in nvidia-smi's units."""
    return [
        device["index"],
        (device["memory_used_bytes"] or 0) / MIB,
        (device["utilization"] or 0) * 100,
        device["temperature_celsius"],
        device["power_watts"],
        device["power_limit_watts"],
        (device["clock_hz"] or 0) / 1e6,
    ]


# both


@contextmanager
def running(
    args: argparse.Namespace, keys: dict[str, str], n_workers: int = 1
) -> Iterator[Service]:
    """A service of the model; with `n_workers` ready ones."""
    if not smi("index"):
        keys = {key: value for key, value in keys.items() if key == "replicas"}
    environ = {f"GPUFC_{key.upper()}": value for key, value in keys.items()}
    environ |= {"GPUFC_STANDBY": "none", "GPUFC_RESTART_LIMIT": "1000"}
    folder = Path(tempfile.mkdtemp(prefix="sg", dir="/tmp"))
    words = ("--model-path", str(args.model), "--n-ctx", "1024")
    slots = ("--max-concurrent-requests", str(args.streams))
    try:
        with service(folder / "r", *words, *slots, environ=environ) as one:
            deadline = time.monotonic() + 120
            while sum(row["state"] == "ready" for row in one.status()["workers"]) < n_workers:
                if time.monotonic() > deadline:
                    raise AssertionError(f"fewer than {n_workers} workers are ready")
                time.sleep(0.1)
            yield one
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def smi(query: str, of: str = "gpu") -> list[list[str]]:
    """Rows of nvidia-smi; none without it."""
    command = ["nvidia-smi", f"--query-{of}={query}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [[cell.strip() for cell in line.split(",")] for line in said.stdout.splitlines()]


_NVML: list[Any] = []


def memory() -> list[float]:
    """MiB in use on each GPU, by NVML; empty without one."""
    if not _NVML:
        try:
            import pynvml

            pynvml.nvmlInit()
            n_gpus = pynvml.nvmlDeviceGetCount()
            _NVML.append([pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(n_gpus)])
            _NVML.append(pynvml)
        except Exception:
            _NVML.append([])
    return [_NVML[1].nvmlDeviceGetMemoryInfo(one).used / MIB for one in _NVML[0]]


PARTS = {"places": places, "death": death, "figures": beside_smi}


if __name__ == "__main__":
    main()
