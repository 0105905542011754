"""Whether a Ray cluster may be used: what its head runs with, and what to set. Pure.

Ray runs the code of any peer that reaches its ports, unless it has a token. Without durable
storage, a head that is started again ends every node's processes, and with them every worker.
"""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

OVERRIDE = "--insecure-ray starts all the same"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
DURABLE = frozenset({"rocksdb", "redis"})


class Head(Struct, frozen=True):
    """The head's processes: environment of its control service, and the dashboard's address.

    `dashboard_host` is None where no dashboard listens.
    """

    environ: Mapping[str, str]
    arguments: Sequence[str]
    dashboard_host: str | None


def head_of(processes: Sequence[tuple[Sequence[str], Mapping[str, str]]]) -> Head | None:
    """The head as its processes tell: command line and environment of each. None without one."""
    control = [one for one in processes if one[0] and one[0][0].endswith("gcs_server")]
    if not control:
        return None
    arguments, environ = control[0]
    return Head(environ, arguments, _dashboard_host(processes))


def _dashboard_host(
    processes: Sequence[tuple[Sequence[str], Mapping[str, str]]],
) -> str | None:
    for arguments, _ in processes:
        if any(one.endswith("dashboard.py") for one in arguments):
            if "--minimal" in arguments or "--disable-frontend" in arguments:
                continue
            return _value(arguments, "--host") or "127.0.0.1"
    return None


def faults(head: Head) -> Iterator[str]:
    """What is wrong with it, and the remedy, one sentence each."""
    if head.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        yield (
            "Ray's head runs without a token, and any peer that reaches it runs code on every"
            " machine: set RAY_AUTH_MODE=token for `ray start` on each machine, and share the token"
        )
    storage = head.environ.get("RAY_gcs_storage", "").lower()
    has_redis = bool(
        head.environ.get("RAY_REDIS_ADDRESS") or _value(head.arguments, "--redis_address")
    )
    if storage not in DURABLE and not has_redis:
        yield (
            "Ray's head forgets everything when it is started again, which ends all workers: set"
            " RAY_gcs_storage=rocksdb and RAY_gcs_storage_path (or Redis), and"
            " RAY_gcs_rpc_server_reconnect_timeout_s=600 for `ray start` on each machine"
        )
    if head.dashboard_host is not None and head.dashboard_host not in LOOPBACK:
        yield (
            f"Ray's dashboard listens on {head.dashboard_host}: start the head with"
            " --dashboard-host=127.0.0.1"
        )


def refusal(head: Head | None) -> str | None:
    """Why the cluster is not used; None for one that is in order."""
    if head is None:
        return f"Ray's head could not be looked at; {OVERRIDE}"
    found = list(faults(head))
    return f"{'; '.join(found)}; {OVERRIDE}" if found else None


def _value(arguments: Sequence[str], name: str) -> str:
    """The value of `--name=value`, or of `--name value`; empty without one."""
    for at, one in enumerate(arguments):
        if one.startswith(f"{name}="):
            return one.partition("=")[2]
        if one == name and at + 1 < len(arguments):
            return arguments[at + 1]
    return ""
