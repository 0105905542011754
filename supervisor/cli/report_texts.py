"""The texts of a report, and what is taken out of them. Reads the machine's versions."""

import os
import platform
import re
import sys
from importlib import metadata
from typing import Any

import gpufc
from gpufc.logs import without_secrets

_PROMPTS = re.compile(r"request_prompt\b|\bprompts=")
_CLIENT = re.compile(r"(\bclient=|\"client\": \")[^\s\"]+")
HIDDEN = "(hidden)"


def clean(text: str) -> str:
    """A text without prompts, secrets and addresses of clients."""
    kept = (line for line in text.splitlines() if not _PROMPTS.search(line))
    return without_secrets(_CLIENT.sub(rf"\g<1>{HIDDEN}", "\n".join(kept))) + "\n"


def crash(text: str) -> str:
    """A crash record. Its worker's output may have prompts at DEBUG."""
    return clean(text)


def versions() -> dict[str, Any]:
    """gpufc, all that it needs, Python, the system and the processor."""
    return {
        "gpufc": gpufc.__version__,
        "python": sys.version,
        "executable": sys.executable,
        "system": platform.platform(),
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "packages": dict(_packages()),
    }


def _packages() -> list[tuple[str, str]]:
    """The installed packages that gpufc requires, with their versions."""
    try:
        required = metadata.requires("gpufc") or []
    except metadata.PackageNotFoundError:
        return []
    names = [re.split(r"[^A-Za-z0-9_.-]", one, maxsplit=1)[0] for one in required]
    found = []
    for name in dict.fromkeys(names):
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith("model name")]
    except OSError:
        lines = []
    return lines[0].partition(":")[2].strip() if lines else platform.processor()
