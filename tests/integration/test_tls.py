"""TLS of a real front, as `openssl s_client` sees it, and a certificate renewed under streams."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.integration.fake_service import ENDLESS, FAKE, WIDE, Reading
from tests.service import Service, service, wait_for

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")

SCRIPT = Path(__file__).parents[2] / "scripts" / "certificate"
N_STREAMS = 50
OWN = {
    "GPUFC_FAKE_SCRIPT": "step_ms=20",
    "GPUFC_MAX_CONCURRENT_REQUESTS": str(N_STREAMS),
    "GPUFC_STANDBY": "none",
}
ENVIRON = FAKE | WIDE | OWN


def certificate(folder: Path) -> Path:
    """Make one, or another one in its place."""
    subprocess.run([str(SCRIPT), str(folder)], check=True, capture_output=True, timeout=60)
    return folder


def files(folder: Path) -> tuple[str, ...]:
    return ("--tls-cert", f"{folder}/cert.pem", "--tls-key", f"{folder}/key.pem")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Service]:
    with service(folder / "run", *files(folder), environ=ENVIRON) as started:
        yield started


def s_client(running: Service, trusted: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Ask for `/livez` and read to the end of the connection."""
    address = urlsplit(running.url)
    return subprocess.run(
        [
            *("openssl", "s_client", "-connect", f"{address.hostname}:{address.port}", "-quiet"),
            *("-verify_return_error", "-verify_ip", "127.0.0.1", "-CAfile", f"{trusted}/cert.pem"),
            *options,
        ],
        input="GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_s_client_verifies_the_certificate_and_is_answered(running: Service, folder: Path) -> None:
    for version in ("-tls1_2", "-tls1_3"):
        done = s_client(running, folder, version)
        assert done.stdout.startswith("HTTP/1.1 200"), done.stderr
        assert done.returncode == 0


def test_s_client_refuses_a_front_of_another_certificate(running: Service, tmp_path: Path) -> None:
    done = s_client(running, certificate(tmp_path / "other"))
    assert done.returncode != 0
    assert "certificate verify failed" in done.stderr
    assert done.stdout == ""


def test_old_versions_are_refused(running: Service, folder: Path) -> None:
    done = s_client(running, folder, "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0")
    assert done.returncode != 0
    assert done.stdout == ""


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_client_of_another_authority_is_refused(tmp_path: Path, version: str) -> None:
    front, known, stranger = (certificate(tmp_path / name) for name in ("front", "known", "other"))
    environ = ENVIRON | {"GPUFC_TLS_CLIENT_CA": f"{known}/cert.pem"}
    with service(tmp_path / "run", *files(front), environ=environ) as running:

        def ask(folder: Path | None) -> subprocess.CompletedProcess[str]:
            own = ("-cert", f"{folder}/cert.pem", "-key", f"{folder}/key.pem") if folder else ()
            return s_client(running, front, version, *own)

        assert ask(known).stdout.startswith("HTTP/1.1 200")
        assert ask(stranger).stdout == ""
        assert ask(None).stdout == ""


async def test_a_renewal_under_fifty_streams_drops_none(running: Service, folder: Path) -> None:
    def is_renewed() -> bool:
        return s_client(running, folder).returncode == 0

    trusted = ssl.create_default_context(cafile=f"{folder}/cert.pem")
    connector = aiohttp.TCPConnector(limit=0, ssl=trusted)
    async with aiohttp.ClientSession(connector=connector) as http:
        url = running.url
        streams = [Reading(http, url, f"stream {n}", ENDLESS) for n in range(N_STREAMS)]
        await asyncio.gather(*(one.goes_on() for one in streams))
        await asyncio.to_thread(certificate, folder)
        await asyncio.to_thread(
            wait_for, is_renewed, why="new connections see the new one", poll_s=0.2
        )
        await asyncio.gather(*(one.goes_on(5) for one in streams))
        for one in streams:
            await one.leave()
