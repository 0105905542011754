"""Keys and TLS in a real front: what clients see, what a run leaves, and an upgrade."""

import asyncio
import os
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from engine_worker.confinement.confine import abilities
from tests.integration.commands import command
from tests.integration.upgradable import upgraded_ended
from tests.service import COMMAND, Service, clean_environment, service

SCRIPT = Path(__file__).parents[2] / "scripts" / "certificate"

CAN_CONFINE = not abilities().missing
ENVIRON = {
    "GPUFC_BACKEND": "fake",
    "GPUFC_STANDBY": "none",
    "GPUFC_CONFINEMENT": "required" if CAN_CONFINE else "auto",
}

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


class Guarded:
    """A front that asks for keys, over TLS, with its files in `folder`."""

    def __init__(self, folder: Path, running: Service, key: str) -> None:
        self.folder = folder
        self.running = running
        self.key = key

    @property
    def url(self) -> str:
        (address,) = self.running.status()["front"]["addresses"]
        return str(address)

    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=f"{self.folder}/cert.pem")

    async def status(self, path: str, key: str) -> int:
        """Over a new connection."""
        headers = {"x-api-key": key}
        async with (
            aiohttp.ClientSession() as http,
            http.get(self.url + path, headers=headers, ssl=self.trusted()) as answer,
        ):
            return answer.status


def keys(folder: Path, *words: str) -> str:
    """The command's last line."""
    done = subprocess.run(
        [*COMMAND, "keys", *words, "--keys-file", f"{folder}/keys.json"],
        env=clean_environment(), check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout.splitlines()[-1]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    subprocess.run([str(SCRIPT), str(tmp_path)], check=True, capture_output=True, timeout=60)
    key = keys(tmp_path, "add", "me")
    arguments = (
        *("--keys-file", f"{tmp_path}/keys.json", "--tls-cert", f"{tmp_path}/cert.pem"),
        *("--tls-key", f"{tmp_path}/key.pem"),
    )
    running = service(tmp_path / "run", *arguments, environ=ENVIRON)
    with running as started, upgraded_ended(started):
        yield Guarded(tmp_path, started, key)


async def test_a_key_opens_the_front_until_it_is_revoked(guarded: Guarded) -> None:
    assert guarded.url.startswith("https://")
    assert await guarded.status("/livez", "") == 200
    assert await guarded.status("/v1/models", "") == 401
    assert await guarded.status("/v1/models", guarded.key) == 200
    assert await guarded.status("/stats", guarded.key) == 403
    assert not guarded.running.runtime.admin_token.exists()
    await asyncio.to_thread(keys, guarded.folder, "add", "reader", "--scope", "read")
    await asyncio.to_thread(keys, guarded.folder, "revoke", "me")
    async with asyncio.timeout(60):
        while await guarded.status("/v1/models", guarded.key) != 401:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_chat_and_an_upgrade_go_on_over_tls(guarded: Guarded) -> None:
    old = guarded.running.process.pid
    code, said = await command(guarded.running, "upgrade")
    assert code == 0, said
    assert guarded.running.status()["front"]["pid"] != old
    assert await guarded.status("/v1/models", guarded.key) == 200
    assert await guarded.status("/v1/models", "wrong") == 401
    await asyncio.to_thread(guarded.running.process.wait, 60)
    environ = clean_environment() | {
        "GPUFC_API_KEY": guarded.key,
        "SSL_CERT_FILE": f"{guarded.folder}/cert.pem",
    }
    chat = await asyncio.create_subprocess_exec(
        *COMMAND, "chat", "hello", "--runtime-dir", str(guarded.running.runtime.path),
        env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    answer, _ = await chat.communicate()
    assert chat.returncode == 0, answer
    assert answer.strip()


def facts_of(pid: int) -> dict[str, str]:
    """The kernel's facts about a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


@pytest.mark.skipif(not CAN_CONFINE, reason=f"not here: {abilities().missing}")
async def test_a_worker_is_confined_and_computes(guarded: Guarded) -> None:
    (row,) = guarded.running.status()["workers"]
    assert row["confined"]["missing"] == {}
    facts = facts_of(row["pid"])
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert int(facts["CapEff"], 16) & ~0x1804006 == 0
    code, said = await command(guarded.running, "status")
    assert code == 0
    assert "confined  privileges" in said
    body = {"prompt": "hello", "max_tokens": 3}
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            guarded.url + "/v1/completions",
            json=body,
            headers={"x-api-key": guarded.key},
            ssl=guarded.trusted(),
        ) as answer,
    ):
        assert answer.status == 200


async def test_a_key_appears_in_nothing_that_a_run_leaves(guarded: Guarded) -> None:
    for path in ("/v1/models", "/stats", "/no/such/route", f"/?token={guarded.key}"):
        await guarded.status(path, guarded.key)
    front = psutil.Process(guarded.running.process.pid)
    for process in (front, *front.children(recursive=True)):
        assert guarded.key not in " ".join(process.cmdline())
        assert guarded.key not in str(process.environ())
    guarded.running.end()
    searched = 0
    for folder, _, names in os.walk(guarded.folder):
        for name in names:
            path = Path(folder) / name
            if path.is_file():
                searched += 1
                assert guarded.key.encode() not in path.read_bytes(), path
    assert searched > 3
