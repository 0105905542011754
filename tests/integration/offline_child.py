"""Runs a front with a control server and a connecting plugin in a network namespace of its own, and
prints what it sent.

unshare -rn python -m tests.integration.offline_child RUNTIME_DIR OFFLINE
"""

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

from tests.fakes.control_server import CLIENT_ID
from tests.integration.fake_service import FAKE
from tests.service import COMMAND, clean_environment, wait_for

_SET_FLAGS, _UP = 0x8914, 1


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))


def sent() -> dict[str, int]:
    """Connections that this namespace has begun, and datagrams that it has sent."""
    lines = Path("/proc/net/snmp").read_text().splitlines()
    rows = dict(zip(lines[::2], lines[1::2], strict=True))
    found = {}
    for names, values in rows.items():
        kind, *fields = names.split()
        found |= {f"{kind}{name}": v for name, v in zip(fields, values.split()[1:], strict=True)}
    return {name: int(found[name]) for name in ("Tcp:ActiveOpens", "Udp:OutDatagrams")}


def main() -> None:
    folder, is_offline = sys.argv[1:]
    raise_loopback()
    environ = clean_environment() | FAKE
    environ |= {
        "GPUFC_OFFLINE": is_offline,
        "GPUFC_SERVER_ADDR": "127.0.0.1",
        "GPUFC_CLIENT_ID": CLIENT_ID.hex(),
        "GPUFC_PLUGINS": str(Path(__file__).with_name("connecting_plugin.py")),
    }

    def run(*words: str) -> str:
        done = subprocess.run(
            [*COMMAND, *words, "--runtime-dir", folder], env=environ, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(done.stderr)
        return done.stdout

    def counts() -> dict[str, int]:
        (row,) = json.loads(run("status", "--json"))["plugins"]
        return dict(row["counts"])

    run("start", "--detach", "--port", "0")
    try:
        if is_offline == "false":
            wait_for(lambda: sent()["Tcp:ActiveOpens"], 30.0, "a connection")
        wait_for(lambda: counts()["calls"], 30.0, "the plugin hears of the worker")
        wait_for(lambda: counts()["failures"] or is_offline == "false", 30.0, "it is refused")
        document = json.loads(run("status", "--json"))
        print(json.dumps(sent() | {"network": document["network"] is not None}))
    finally:
        run("stop")


if __name__ == "__main__":
    os.umask(0o077)
    main()
