"""The front is killed: how long its processes live on."""

import os
import signal
import time
from pathlib import Path

from tests.chaos.cell import running
from tests.chaos.load import ask_real, begin, pursue
from tests.chaos.report import Report, over, reporting, spread
from tests.chaos.rig import generated, rig
from tests.service import lives, wait_for

GONE_S = 1.0
"""No process outlives its front by more."""
N_TOKENS = 256


async def run(model: Path, n_kills: int) -> Report:
    """The front is killed in the middle of a real stream: all of its processes end with it."""
    report = reporting(f"orphans: the front killed {n_kills} times in the middle of a real stream")
    took = [await _kill(model) for _ in range(n_kills)]
    report.row("worker, spare and template process gone after", spread(took))
    report.wrong += over("gone", took, GONE_S)
    return report


async def _kill(model: Path) -> float:
    async with rig("--model-path", str(model), "--n-ctx", "1024", environ={}) as one:
        ask = ask_real("A short story about the sea:", N_TOKENS)
        async with running(pursue(one.session, one.url, ask, begin("stream", ask))):
            await one.until(lambda now: generated(now) >= 8, "tokens")
            children = one.service.front.children(recursive=True)
            os.kill(one.service.process.pid, signal.SIGKILL)
            at = time.monotonic()
            wait_for(lambda: not any(map(lives, children)))
            return time.monotonic() - at
