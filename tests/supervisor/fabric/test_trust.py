"""TLS to the control port, the pin, plaintext, and the client id."""

import hashlib
import ssl
from pathlib import Path

import pytest
import trustme
import uvloop

from gpufc.config import FabricConfig
from gpufc.errors import ConfigError
from supervisor.fabric.identity import ClientId, client_id
from supervisor.fabric.session import Phase
from supervisor.fabric.trust import Trust, is_loopback
from tests.fakes.control_server import CLIENT_ID, control_server
from tests.supervisor.dispatch.fakes import until
from tests.supervisor.fabric.conftest import NAME, Certificates, machine

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def pin(certificates: Certificates) -> str:
    pem = certificates.leaf.cert_chain_pems[0].bytes().decode()
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


async def require_joined(certificates: Certificates, **fields: str | None) -> None:
    async with (
        control_server(tls=certificates.tls) as server,
        machine(server, control_tls=True, **fields),
    ):
        await server.joined()
        await server.until(lambda: server.online)


async def require_untrusted(certificates: Certificates, reason: str, **fields: str | None) -> None:
    """The machine says why it does not join, and the server never sees its id."""
    async with control_server(tls=certificates.tls) as server:
        async with machine(server, control_tls=True, **fields) as made:
            await until(lambda: made.client.status().phase is Phase.WAITING)
            assert reason in made.client.status().detail
        assert server.logins == []


async def test_a_server_with_a_trusted_certificate_is_joined(
    certificates: Certificates, ca_file: str
) -> None:
    await require_joined(certificates, cert_chain_path=ca_file)
    await require_joined(certificates, cert_chain_path=ca_file, control_tls_server_name=NAME)


async def test_a_wrong_name_is_not_trusted(certificates: Certificates, ca_file: str) -> None:
    await require_untrusted(
        certificates,
        "Hostname mismatch",
        cert_chain_path=ca_file,
        control_tls_server_name="other.example",
    )


async def test_another_authority_is_not_trusted(certificates: Certificates, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    await require_untrusted(certificates, "CERTIFICATE_VERIFY_FAILED", cert_chain_path=str(other))
    await require_untrusted(certificates, "CERTIFICATE_VERIFY_FAILED")


async def test_a_pin_stands_for_chain_and_name(certificates: Certificates, pin: str) -> None:
    colons = ":".join(pin[i : i + 2] for i in range(0, 64, 2)).upper()
    for spelling in (pin, f"sha256:{pin}", colons):
        await require_joined(
            certificates, control_tls_pin=spelling, control_tls_server_name="other.example"
        )


async def test_a_wrong_pin_is_not_trusted(certificates: Certificates, ca_file: str) -> None:
    for path in (None, ca_file):
        await require_untrusted(
            certificates, "not the pinned one", control_tls_pin="0" * 64, cert_chain_path=path
        )


async def test_a_pin_beside_an_authority_leaves_the_name_checked(
    certificates: Certificates, ca_file: str, pin: str
) -> None:
    await require_joined(certificates, control_tls_pin=pin, cert_chain_path=ca_file)
    await require_untrusted(
        certificates,
        "Hostname mismatch",
        control_tls_pin=pin,
        cert_chain_path=ca_file,
        control_tls_server_name="other.example",
    )


def test_the_loop_of_a_real_front_checks_the_pin_and_the_name_too(
    certificates: Certificates, ca_file: str, pin: str
) -> None:
    uvloop.run(require_joined(certificates, control_tls_pin=pin))
    uvloop.run(require_joined(certificates, cert_chain_path=ca_file))
    uvloop.run(require_untrusted(certificates, "not the pinned one", control_tls_pin="0" * 64))
    uvloop.run(
        require_untrusted(
            certificates,
            "Hostname mismatch",
            cert_chain_path=ca_file,
            control_tls_server_name="other.example",
        )
    )


def config(**fields: object) -> FabricConfig:
    return FabricConfig(**({"server_addr": "control.example"} | fields))  # type: ignore[arg-type]


def test_plaintext_beyond_this_machine_needs_a_word_of_the_operator() -> None:
    with pytest.raises(ConfigError, match="control_tls = true"):
        Trust(config())
    assert Trust(config(control_plaintext=True)).control is None
    assert Trust(config(control_tls=True)).control is not None
    for address in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert Trust(config(server_addr=address)).control is None
        assert is_loopback(address)
    for address in ("192.168.1.2", "0.0.0.0", "::", "localhost.example", "::ffff:10.0.0.1"):
        assert not is_loopback(address)


def test_an_authority_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pem", tmp_path):
        with pytest.raises(ConfigError, match="cert_chain_path"):
            Trust(config(control_tls=True, cert_chain_path=str(path)))
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with pytest.raises(ConfigError, match="cert_chain_path"):
        Trust(config(control_tls=True, cert_chain_path=str(empty)))


def test_the_client_id_comes_from_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "id"
    file.write_text(f"0x{CLIENT_ID.hex()}\n")
    file.chmod(0o600)
    found = client_id(config(client_id_file=str(file)))
    assert found.raw == CLIENT_ID
    assert (str(found), repr(found)) == ("0011…eeff", "0011…eeff")
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        client_id(config(client_id_file=str(file)))
    with pytest.raises(ConfigError, match="cannot be read"):
        client_id(config(client_id_file=str(tmp_path / "none")))


@pytest.mark.parametrize("text", ["", "00112233", "x" * 32, CLIENT_ID.hex() + "00"])
def test_an_id_that_is_none_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ClientId(text, "variable GPUFC_CLIENT_ID")
    assert not text or text not in str(caught.value)


def test_a_server_without_an_id_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="client_id_file"):
        client_id(config())
