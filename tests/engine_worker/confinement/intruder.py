"""Run as `python -m … MODEL SECRET PID`: confines itself as a worker of MODEL, then tries to get
out, and prints what came of each attempt as a JSON object."""

import ctypes
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from engine_worker.confinement.confine import confine
from engine_worker.confinement.syscalls import NAMESPACES
from gpufc.config import Confinement, ModelConfig

PTRACE_ATTACH = 16
CLONE = {"x86_64": 56, "aarch64": 220}

_libc = ctypes.CDLL(None, use_errno=True)


def call(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def read_by_child(path: str) -> None:
    done = subprocess.run(["cat", path], capture_output=True)
    if b"Permission denied" in done.stderr:
        raise PermissionError(path)


def child_with(flag: int) -> None:
    """A child in a namespace of its own, as `fork` would make it."""
    pid = _libc.syscall(CLONE[platform.machine()], flag | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    call(pid)
    os.waitpid(pid, 0)


def link_out(secret: str) -> str:
    """A link that was there before, to a file out of reach."""
    return Path(f"{secret}.link").read_text()


def attempts(model: str, secret: str, pid: int) -> dict[str, Callable[[], object]]:
    return {
        "a TCP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "a UDP socket": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
        "a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "io_uring": lambda: call(_libc.syscall(425, 1, ctypes.create_string_buffer(120))),
        "the shadow file": lambda: Path("/etc/shadow").read_text(),
        "the keys file": lambda: Path(secret).read_text(),
        "a link to the keys file": lambda: link_out(secret),
        "the folder of the keys file": lambda: os.listdir(Path(secret).parent),
        "the home folder": lambda: os.listdir(Path.home()),
        "another file": lambda: Path(f"{secret}.new").write_text("x"),
        "the model's file, to write": lambda: os.open(model, os.O_WRONLY),
        "another process's variables": lambda: Path(f"/proc/{pid}/environ").read_bytes(),
        "another process's memory": lambda: open(f"/proc/{pid}/mem", "rb").read(1),
        "ptrace": lambda: call(_libc.ptrace(PTRACE_ATTACH, pid, None, None)),
        "a namespace": lambda: call(_libc.unshare(0x10000000)),
        **{f"a child in namespace {flag:#x}": partial(child_with, flag) for flag in NAMESPACES},
        "the keys file from a child": lambda: read_by_child(secret),
    }


NEEDED: dict[str, Callable[[str], object]] = {
    "a local socket": lambda _: socket.socket(socket.AF_UNIX),
    "the model": lambda model: Path(model).read_bytes(),
    "a part of the model": lambda model: Path(model.replace("00001-of", "00002-of")).read_bytes(),
    "figures of the machine": lambda _: Path("/proc/meminfo").read_text(),
    "its own maps": lambda _: Path("/proc/self/maps").read_text(),
    "the null device": lambda _: Path("/dev/null").write_text("x"),
    "a module of ours": lambda _: __import__("engine_worker.kv.radix_tree"),
    "a module of others": lambda _: __import__("jinja2.sandbox"),
    "numpy": lambda _: __import__("numpy"),
    "anonymous memory": lambda _: os.memfd_create("x"),
    "a thread": lambda _: threading.Thread(target=os.getpid).start(),
    "a child with libraries": lambda _: subprocess.run(
        [sys.executable, "-c", "import jinja2"], check=True
    ),
}


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except PermissionError:
        return "refused"
    except Exception as err:  # what else happens is the test's to judge
        return repr(err)
    return "done"


def main(model: str, secret: str, pid: str) -> None:
    found = confine(ModelConfig(model_path=model, confinement=Confinement.REQUIRED))
    tried = attempts(model, secret, int(pid))
    report = {
        "missing": found.missing,
        "attempts": {name: outcome(attempt) for name, attempt in tried.items()},
        "needed": {name: outcome(lambda use=use: use(model)) for name, use in NEEDED.items()},  # type: ignore[misc]
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
