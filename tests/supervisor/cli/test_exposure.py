"""`start` beyond this machine: refused in one line without keys and TLS."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from gpufc.config import AccessConfig
from gpufc.errors import ConfigError
from supervisor.access import exposure, store
from supervisor.access.keys import KeyList
from supervisor.cli import cli
from supervisor.cli.errors import USAGE
from supervisor.cli.options import resolve
from supervisor.cli.preflight import check_access, check_exposure
from supervisor.http.edge.server import UnguardedAddress, bind, require_guarded
from tests.supervisor.access.test_keys import key

KEYS, TLS = "keys (--keys-file)", "TLS (--tls-cert, --tls-key)"


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", False),
        ("::", False), ("192.0.2.1", False), ("fe80::1%eth0", False), ("::ffff:192.0.2.1", False),
    ],
)  # fmt: skip
def test_only_loopback_is_this_machine(address: str, loopback: bool) -> None:
    assert exposure.is_loopback(address) is loopback


@pytest.mark.parametrize(
    ("access", "missing"),
    [
        (AccessConfig(), [KEYS, TLS]),
        (AccessConfig(keys_file="k"), [TLS]),
        (AccessConfig(tls_cert="c"), [KEYS]),
        (AccessConfig(keys_file="k", tls_cert="c"), []),
    ],
)
def test_the_refusal_names_what_is_missing(access: AccessConfig, missing: list[str]) -> None:
    refusal = exposure.refusal("host 0.0.0.0", access)
    assert (refusal is None) == (missing == [])
    if refusal is not None:
        assert f"which needs {' and '.join(missing)};" in refusal
        assert "--insecure" in refusal
        assert "\n" not in refusal


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]"])
def test_start_refuses_such_a_host_with_exit_code_2(host: str) -> None:
    result = CliRunner(env={"GPUFC_BACKEND": "fake"}).invoke(cli, ["start", "--host", host])
    assert result.exit_code == USAGE
    (line,) = result.stderr.splitlines()
    assert f"host {host} (flag --host) can be reached" in line
    assert KEYS in line
    assert TLS in line


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_this_machine_needs_neither(host: str) -> None:
    assert check_exposure(resolve({"host": host})) == ()


def test_insecure_is_a_flag_that_leaves_a_warning() -> None:
    settings = resolve({"host": "0.0.0.0", "insecure": "true"})
    (note,) = check_exposure(settings)
    assert note == "warning: 0.0.0.0 can be reached from other machines without keys and TLS"
    help_text = CliRunner().invoke(cli, ["start", "--help"]).stdout
    assert "--insecure " in help_text


def test_the_insecure_flag_reaches_a_detached_start() -> None:
    from supervisor.cli.start import _arguments

    assert _arguments({"insecure": "true", "port": "1", "host": None}, None) == [
        "--insecure", "--port=1"
    ]  # fmt: skip


def test_sockets_of_a_service_manager_are_checked_too() -> None:
    (near,) = bind("127.0.0.1", 0)
    (far,) = bind("0.0.0.0", 0)
    with near, far:
        require_guarded([near], AccessConfig())
        require_guarded([far], AccessConfig(insecure=True))
        require_guarded([far], AccessConfig(keys_file="k", tls_cert="c"))
        with pytest.raises(UnguardedAddress, match=r"the socket on 0\.0\.0\.0"):
            require_guarded([near, far], AccessConfig(keys_file="k"))


def test_a_keys_file_without_keys_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(ConfigError, match="does not exist"):
        check_access(AccessConfig(keys_file=str(path)))
    store.change(path, lambda known: known)
    with pytest.raises(ConfigError, match="has no keys; `keys add NAME"):
        check_access(AccessConfig(keys_file=str(path)))
    store.change(path, lambda _known: KeyList((key("a"),)))
    check_access(AccessConfig(keys_file=str(path)))


def test_a_key_without_its_certificate_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="tls_key is set and tls_cert is not"):
        check_access(AccessConfig(tls_key="k"))
