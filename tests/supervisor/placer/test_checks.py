"""Which clusters are refused, and that each refusal says what to set."""

import pytest

from supervisor.placer.checks import Head, head_of, refusal

SAFE = {"RAY_AUTH_MODE": "token", "RAY_gcs_storage": "rocksdb"}


def head(environ: dict[str, str] | None = None, dashboard_host: str | None = None) -> Head:
    return Head(SAFE if environ is None else environ, ("gcs_server",), dashboard_host)


def test_a_safe_and_durable_cluster_is_used() -> None:
    assert refusal(head()) is None
    assert refusal(head(dashboard_host="127.0.0.1")) is None
    with_redis = Head(
        {"RAY_AUTH_MODE": "token"}, ("gcs_server", "--redis_address=10.0.0.1:6379"), None
    )
    assert refusal(with_redis) is None


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        (head({"RAY_gcs_storage": "rocksdb"}), "RAY_AUTH_MODE=token"),
        (head({"RAY_AUTH_MODE": "token"}), "RAY_gcs_storage=rocksdb"),
        (head({"RAY_AUTH_MODE": "token", "RAY_gcs_storage": "memory"}), "RAY_gcs_storage=rocksdb"),
        (head(dashboard_host="0.0.0.0"), "--dashboard-host=127.0.0.1"),
        (None, "--insecure-ray"),
    ],
)
def test_any_other_is_refused_with_the_remedy(given: Head | None, remedy: str) -> None:
    said = refusal(given)
    assert said is not None
    assert remedy in said
    assert said.endswith("--insecure-ray starts all the same")


def test_the_head_is_known_by_its_processes() -> None:
    processes = [
        (("/opt/ray/core/raylet", "--x"), {}),
        (("/opt/ray/core/gcs_server", "--redis_address="), SAFE),
        (("python", "/opt/ray/dashboard/dashboard.py", "--host=0.0.0.0"), {}),
    ]
    found = head_of(processes)
    assert found == Head(SAFE, ("/opt/ray/core/gcs_server", "--redis_address="), "0.0.0.0")
    assert head_of(processes[:1]) is None
