"""Operators' commands, each as a process of its own."""

import asyncio
from pathlib import Path

from tests.service import COMMAND, Service, clean_environment

NOT_RUNNING = 4
REFUSED = 5


async def command(running: Service, name: str, *arguments: str) -> tuple[int, str]:
    """Its exit code, and everything that it printed."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        name,
        *arguments,
        "--runtime-dir",
        str(running.runtime.path),
        env=clean_environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


def fake_model(path: Path, script: str = "") -> Path:
    """A model file for the scripted engine. `script`: see engine_worker/backend/fake/faults.py."""
    path.write_bytes(b"GGUF\x03\0\0\0" + bytes(64))
    if script:
        path.with_name(f"{path.name}.script").write_text(script)
    return path
