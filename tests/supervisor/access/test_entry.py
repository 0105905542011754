"""Names, addresses and origins from which the service may be asked."""

import pytest

from supervisor.access.cors import Origins
from supervisor.access.hosts import Hosts
from supervisor.access.networks import Networks

HOSTS = Hosts(("0.0.0.0", "Box", "box.corp.example"), ("llm.example.org", "*.gpu.example."))


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        *(("", True), ("localhost", True), ("LOCALHOST:8082", True), ("localhost.", True)),
        *(("app.localhost:80", True), ("127.0.0.1:8082", True), ("10.1.2.3", True)),
        *(("[::1]:8082", True), ("[fe80::1%25eth0]:8082", True), ("0.0.0.0:8082", True)),
        *(("box", True), ("box:8082", True), ("box.local", True), ("box.corp.example", True)),
        *(("llm.example.org", True), ("a.gpu.example:443", True), ("A.B.GPU.example.", True)),
        *(("evil.example", False), ("evil.example:8082", False), ("gpu.example", False)),
        *(("localhost.evil.example", False), ("127.0.0.1.evil.example", False)),
        *(("llm.example.org.evil.example", False), ("evil.local", False), ("box.evil", False)),
        *(("0x7f.1", False), ("127.1", False), ("evil.example.", False), ("x.notlocalhost", False)),
        *(("gpufc", True), ("gpufc:8082", True), ("x:", True)),  # a container's name
    ],
)
def test_a_name_of_another_site_is_no_name_of_this_service(host: str, allowed: bool) -> None:
    assert HOSTS.allows(host) is allowed


def test_one_star_allows_every_name() -> None:
    assert Hosts((), ("*",)).allows("evil.example")


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        *(("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("192.168.1.7", True)),
        *(("fd00::1", True), ("fd00::1%eth0", True), ("11.0.0.1", False), ("fe80::1", False)),
        *(("192.168.1.8", False), ("", False), ("evil", False), ("127.0.0.1", False)),
    ],
)
def test_an_address_outside_the_networks_is_refused(address: str, allowed: bool) -> None:
    networks = Networks(("10.0.0.0/8", "192.168.1.7", "fd00::/8"), ())
    assert networks.allows(address) is allowed


def test_without_networks_every_address_is_allowed() -> None:
    assert Networks((), ()).allows("")
    assert Networks((), ("10.0.0.1",)).allows("8.8.8.8")


PROXIED = Networks((), ("10.0.0.0/24",))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", ["8.8.8.8"], "8.8.8.8"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.1.1.1, 8.8.8.8"], "8.8.8.8"),
        ("10.0.0.1", ["1.1.1.1, 8.8.8.8, 10.0.0.9"], "8.8.8.8"),
        ("10.0.0.1", ["1.1.1.1", "8.8.8.8"], "8.8.8.8"),
        ("10.0.0.1", ["10.0.0.7"], "10.0.0.7"),
        ("10.0.0.1", ["8.8.8.8:5123"], "8.8.8.8"),
        ("10.0.0.1", ["[2001:db8::1]:80"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["unknown"], ""),
        ("10.0.0.1", [""], ""),
        ("::ffff:10.0.0.1", ["8.8.8.8"], "8.8.8.8"),
        ("8.8.8.8", ["127.0.0.1"], "8.8.8.8"),
    ],
)
def test_only_a_named_proxy_is_believed(peer: str, forwarded: list[str], client: str) -> None:
    assert PROXIED.client(peer, forwarded) == client


def test_without_proxies_the_header_means_nothing() -> None:
    assert Networks((), ()).client("8.8.8.8", ["127.0.0.1"]) == "8.8.8.8"


ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


def test_an_allowed_origins_page_may_ask_with_a_key() -> None:
    origins = Origins(("https://app.example.org/", "http://localhost:*"))
    for origin in ("https://app.example.org", "http://localhost:3000"):
        answer = origins.preflight({"Origin": origin, **ASKS})
        assert answer is not None
        assert answer["Access-Control-Allow-Origin"] == origin
        assert answer["Access-Control-Allow-Headers"] == "authorization"
        assert answer["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in answer
        assert origins.headers({"Origin": origin})["Access-Control-Allow-Origin"] == origin
    for origin in ("https://evil.example", "https://app.example.org.evil.example", "null", ""):
        assert origins.preflight({"Origin": origin, **ASKS}) is None
        assert origins.headers({"Origin": origin}) == {"Vary": "Origin"}
    assert origins.preflight({"Origin": "https://app.example.org"}) is None


def test_by_default_no_origin_is_told_anything() -> None:
    assert Origins(()).headers({"Origin": "https://a.example"}) == {}
    assert Origins(()).preflight({"Origin": "https://a.example", **ASKS}) is None


def test_any_origin_is_told_a_star_and_no_forged_headers() -> None:
    answer = Origins(("*",)).preflight(
        {"Origin": "https://a.example", **ASKS, "Access-Control-Request-Headers": "a\r\nX: y"}
    )
    assert answer is not None
    assert answer["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Headers" not in answer
