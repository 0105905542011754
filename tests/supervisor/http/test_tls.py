"""TLS on a real socket: versions, renewal under open streams, client certificates."""

import asyncio
import logging
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from gpufc.config import AccessConfig, Config, LimitsConfig
from gpufc.errors import ConfigError
from supervisor.http.edge.connection import BoundedServer
from supervisor.http.edge.server import FrontRunner, bind
from supervisor.http.edge.tls import Certificate
from tests.supervisor.dispatch.fakes import FakeWorker, until
from tests.supervisor.http.conftest import Service

JSON = {"Content-Type": "application/json"}

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
pytestmark = needs_openssl

SCRIPT = Path(__file__).parents[3] / "scripts" / "certificate"


def made(folder: Path) -> AccessConfig:
    """A new self-signed certificate, by the script that operators use."""
    subprocess.run([str(SCRIPT), str(folder)], check=True, capture_output=True, timeout=60)
    return AccessConfig(tls_cert=f"{folder}/cert.pem", tls_key=f"{folder}/key.pem")


def spoil(key: Path, harm: str, other: AccessConfig) -> None:
    if harm == "garbage":
        key.write_text("no key")
    elif harm == "gone":
        key.unlink()
    else:
        shutil.copy(other.tls_key or "", key)


def trusting(access: AccessConfig, **versions: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=access.tls_cert)
    for name, version in versions.items():
        setattr(context, name, version)
    return context


class Encrypted:
    def __init__(self, access: AccessConfig, limits: LimitsConfig) -> None:
        self.certificate = Certificate(access)
        self.service = Service(Config(limits=limits))
        self.runner = FrontRunner(self.service.app, limits, self.certificate)
        self.worker: FakeWorker
        self.address: tuple[str, int]

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.address[1]}"

    async def handshake(self, context: ssl.SSLContext) -> bytes:
        """Connect; the server's certificate. Raises `ssl.SSLError` or `ConnectionError`."""
        reader, writer = await asyncio.open_connection(*self.address, ssl=context)
        try:
            found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            # TLS 1.3 tells of a refused client certificate with the first read only
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            if not answer:
                raise ConnectionError("closed")
            assert answer.startswith(b"HTTP/1.1 200")
            return found
        finally:
            writer.transport.abort()


@asynccontextmanager
async def encrypted(
    access: AccessConfig, limits: LimitsConfig | None = None
) -> AsyncIterator[Encrypted]:
    front = Encrypted(access, limits or LimitsConfig())
    (sock,) = bind("127.0.0.1", 0)
    front.address = sock.getsockname()
    await front.runner.setup()
    await front.runner.listen([sock])
    front.worker = front.service.fleet.start_worker()
    try:
        yield front
    finally:
        await front.runner.cleanup()


async def test_requests_are_answered_over_tls(tmp_path: Path) -> None:
    access = made(tmp_path)
    async with encrypted(access) as front, aiohttp.ClientSession() as http:
        url, body = f"{front.url}/v1/completions", msgspec.json.encode({"prompt": "hi"})
        for _ in range(3):  # over one connection
            async with http.post(url, data=body, headers=JSON, ssl=trusting(access)) as answer:
                assert answer.status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.get(url)


async def test_versions_before_1_2_are_refused(tmp_path: Path) -> None:
    access = made(tmp_path)
    async with encrypted(access) as front:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(access, minimum_version=version, maximum_version=version)
            assert await front.handshake(context)
        old = trusting(access)
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await front.handshake(old)


async def test_plain_http_gets_no_answer(tmp_path: Path) -> None:
    async with encrypted(made(tmp_path)) as front:
        reader, writer = await asyncio.open_connection(*front.address)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(asyncio.IncompleteReadError):
            await asyncio.wait_for(reader.readexactly(12), 60)
        writer.transport.abort()


async def test_a_renewed_certificate_is_served_and_no_stream_ends(tmp_path: Path) -> None:
    access = made(tmp_path)
    async with encrypted(access) as front:
        front.worker.auto = False
        old = trusting(access)
        before = await front.handshake(old)
        body = msgspec.json.encode({"prompt": "hi", "stream": True, "max_tokens": 4})
        url = f"{front.url}/v1/completions"
        async with aiohttp.ClientSession() as http:
            streams = [
                asyncio.create_task(http.post(url, data=body, headers=JSON, ssl=old))
                for _ in range(4)
            ]
            async with asyncio.timeout(60):
                while front.service.dispatcher.occupancy.running < 4:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            made(tmp_path)
            assert front.certificate.has_changed()
            assert front.certificate.renew()
            assert not front.certificate.has_changed()
            after = await front.handshake(trusting(access))
            assert after != before
            with pytest.raises(ssl.SSLCertVerificationError):
                await front.handshake(old)
            front.worker.auto = True
            front.worker.go()
            for answer in await asyncio.gather(*streams):
                assert answer.status == 200
                assert (await answer.read()).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("harm", ["garbage", "gone", "another's key"])
async def test_a_failed_renewal_leaves_the_certificate_in_force(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    access = made(tmp_path / "one")
    other = made(tmp_path / "other")
    async with encrypted(access) as front:
        trusted = trusting(access)
        before = await front.handshake(trusted)
        spoil(Path(access.tls_key or ""), harm, other)
        assert front.certificate.has_changed()
        caplog.set_level(logging.ERROR)
        assert not front.certificate.renew()
        assert [one.levelno for one in caplog.records].count(logging.ERROR) == 1
        assert not front.certificate.has_changed()  # it is not tried again before the next change
        assert await front.handshake(trusted) == before


async def test_clients_need_a_certificate_of_the_named_authority(tmp_path: Path) -> None:
    server, client, stranger = (made(tmp_path / name) for name in ("server", "client", "stranger"))
    access = msgspec.structs.replace(server, tls_client_ca=client.tls_cert)
    async with encrypted(access) as front:
        known, unknown, none = (trusting(server) for _ in range(3))
        known.load_cert_chain(client.tls_cert or "", client.tls_key)
        unknown.load_cert_chain(stranger.tls_cert or "", stranger.tls_key)
        assert await front.handshake(known)
        for context in (unknown, none):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await front.handshake(context)


async def test_an_authority_that_is_taken_out_is_trusted_no_more(tmp_path: Path) -> None:
    server, client, other = (made(tmp_path / name) for name in ("server", "client", "other"))
    authorities = tmp_path / "authorities.pem"
    shutil.copy(client.tls_cert or "", authorities)
    access = msgspec.structs.replace(server, tls_client_ca=str(authorities))
    async with encrypted(access) as front:
        known = trusting(server)
        known.load_cert_chain(client.tls_cert or "", client.tls_key)
        assert await front.handshake(known)
        shutil.copy(other.tls_cert or "", authorities)
        assert front.certificate.renew()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await front.handshake(known)


async def test_a_handshake_has_as_much_time_as_a_header(tmp_path: Path) -> None:
    limits = LimitsConfig(header_timeout_s=0.2)
    async with encrypted(made(tmp_path), limits) as front:
        reader, writer = await asyncio.open_connection(*front.address)
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_handshakes_that_never_end_have_places_like_other_connections(tmp_path: Path) -> None:
    limits = LimitsConfig(max_connections_per_address=4, header_timeout_s=3600.0)
    access = made(tmp_path)
    async with encrypted(access, limits) as front:
        silent = [await asyncio.open_connection(*front.address) for _ in range(12)]
        assert await front.handshake(trusting(access))
        await until(lambda: sum(reader.at_eof() for reader, _ in silent) >= 8)
        for _, writer in silent:
            writer.transport.abort()


async def test_a_handshake_that_fails_gives_its_place_back(tmp_path: Path) -> None:
    access = made(tmp_path)
    async with encrypted(access, LimitsConfig(max_connections_per_address=2)) as front:
        for _ in range(6):
            reader, writer = await asyncio.open_connection(*front.address)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await reader.read()
            writer.transport.abort()
        server = front.runner.server
        assert isinstance(server, BoundedServer)
        await until(lambda: not server.handshakes)
        for _ in range(2):
            assert await front.handshake(trusting(access))
        await until(lambda: front.runner.n_connections == 0)
        assert not server.places._by_address


async def test_a_client_that_leaves_ends_its_request(tmp_path: Path) -> None:
    access = made(tmp_path)
    async with encrypted(access) as front:
        front.worker.auto = False
        reader, writer = await asyncio.open_connection(*front.address, ssl=trusting(access))
        body = msgspec.json.encode({"prompt": "hi"})
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        async with asyncio.timeout(60):
            while not front.service.dispatcher.occupancy.running:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        writer.close()
        assert await front.service.dispatcher.wait_idle(60.0)
        del reader


def test_an_encrypted_key_is_refused_and_asks_nothing(tmp_path: Path) -> None:
    access = made(tmp_path)
    subprocess.run(
        ["openssl", "ec", "-in", f"{tmp_path}/key.pem", "-aes256", "-passout", "pass:secret",
         "-out", f"{tmp_path}/locked.pem"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="make no certificate"):
        Certificate(msgspec.structs.replace(access, tls_key=f"{tmp_path}/locked.pem"))


def test_files_that_make_no_certificate_are_one_line(tmp_path: Path) -> None:
    access = made(tmp_path)
    (tmp_path / "text").write_text("text")
    cert = access.tls_cert or ""
    for cert_file, key_file, ca_file in (
        ("/no/such/file", access.tls_key, None),
        (f"{tmp_path}/text", access.tls_key, None),
        (cert, None, None),
        (cert, access.tls_key, f"{tmp_path}/text"),
        (cert, access.tls_key, "/no/such/file"),
        (None, access.tls_key, None),
        (None, None, cert),
    ):
        wrong = AccessConfig(tls_cert=cert_file, tls_key=key_file, tls_client_ca=ca_file)
        with pytest.raises(ConfigError) as found:
            Certificate.of(wrong)
        assert "\n" not in str(found.value)
        assert "tls_" in str(found.value)
    assert Certificate.of(AccessConfig()) is None


def test_one_file_may_hold_the_chain_and_the_key(tmp_path: Path) -> None:
    made(tmp_path)
    both = (tmp_path / "cert.pem").read_text() + (tmp_path / "key.pem").read_text()
    (tmp_path / "both.pem").write_text(both)
    assert Certificate.of(AccessConfig(tls_cert=f"{tmp_path}/both.pem")) is not None
