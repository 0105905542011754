"""Whether one key can tell from the time to its first token what another key has asked."""

import random
import secrets
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from supervisor.access import store
from supervisor.access.keys import Key, KeyList, digest, new_text
from supervisor.dispatch.request import Scope
from tests.chaos.report import Report, reporting, spread
from tests.chaos.rig import Rig, rig, stop_and_look

TELLS_NOTHING = 0.55
TELLS = 0.95
N_LETTERS = 1200
ENVIRON = {
    "GPUFC_BACKEND": "fake",
    "GPUFC_FAKE_SCRIPT": "prefill_us=50",
    "GPUFC_LOG_LEVEL": "warning",
    "GPUFC_STANDBY": "none",
    "GPUFC_MAX_CONCURRENT_REQUESTS": "4",
}
OWNERS = {"asker": None, "stranger": None, "friend": "team", "colleague": "team"}
"""Each key's cache group."""


async def run(n_probes: int, seed: int) -> Report:
    """A stranger's probe of a prompt that another key has just sent is as slow as that of a new
    one; within a cache group, it is not."""
    report = reporting(f"timing: {n_probes} probes of each kind, seed {seed}")
    chance = random.Random(seed)
    texts = {name: new_text() for name in OWNERS}
    with tempfile.TemporaryDirectory(prefix="ch") as folder:
        path = Path(folder) / "keys.json"
        listed = tuple(
            Key(name=name, sha256=digest(texts[name]), scopes=(Scope.GENERATE,), created=1,
                cache_group=group)
            for name, group in OWNERS.items()
        )  # fmt: skip
        store.change(path, lambda _: KeyList(listed))
        async with rig("--keys-file", str(path), environ=ENVIRON) as one:
            for asker, prober, least, most in (
                ("asker", "stranger", 0.0, TELLS_NOTHING),
                ("friend", "colleague", TELLS, 1.0),
            ):
                asked, fresh = await _probes(one, texts[asker], texts[prober], n_probes, chance)
                area = auc(asked, fresh)
                report.row(f"{prober}: what {asker} has asked", spread(asked))
                report.row(f"{prober}: a new prompt", spread(fresh))
                report.row(f"{prober}: area under the curve", f"{area:.3f}")
                if not least <= area <= most:
                    report.wrong.append(f"{prober} of {asker}: {area:.3f}")
            report.wrong += stop_and_look(one.service)
    return report


def auc(quicker: Sequence[float], slower: Sequence[float]) -> float:
    """How often a value of the first kind is below one of the second: 0.5 is no difference."""
    wins = sum((a < b) + 0.5 * (a == b) for a in quicker for b in slower)
    return wins / (len(quicker) * len(slower))


async def _probes(
    one: Rig, asker: str, prober: str, n: int, chance: random.Random
) -> tuple[list[float], list[float]]:
    asked: list[float] = []
    fresh: list[float] = []
    for _ in range(n):
        known, new = (secrets.token_hex(N_LETTERS // 2) for _ in range(2))
        await _first_token_s(one, asker, known)
        probes = [(known, asked), (new, fresh)]
        chance.shuffle(probes)  # else the later probe would always find a warmer machine
        for prompt, times in probes:
            times.append(await _first_token_s(one, prober, prompt))
    return asked, fresh


async def _first_token_s(one: Rig, key: str, prompt: str) -> float:
    body = {"prompt": prompt, "max_tokens": 1, "stream": True}
    headers = {"Authorization": f"Bearer {key}"}
    started = time.monotonic()
    async with one.session.post(
        f"{one.url}/v1/completions", json=body, headers=headers,
        timeout=aiohttp.ClientTimeout(60),
    ) as response:  # fmt: skip
        response.raise_for_status()
        await response.content.readany()
        took = time.monotonic() - started
        await response.read()
    return took
