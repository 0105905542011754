"""What a confined process can do, tried by a real one."""

import contextlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine_worker.confinement import capabilities, landlock, needs, syscalls
from engine_worker.confinement.confine import abilities, require
from engine_worker.confinement.landlock import LIST, READ, Rule
from gpufc.config import Confinement, ModelConfig
from gpufc.errors import ModelLoadError
from gpufc.facts import Confined

needs_kernel = pytest.mark.skipif(
    bool(abilities().missing), reason=f"not here: {abilities().missing}"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("confined")
    (folder / "real").mkdir()
    for number in (1, 2):
        (folder / "real" / f"blob{number}").write_bytes(b"GGUF")
        # a cache of links, as Hugging Face's
        (folder / f"m-0000{number}-of-00002.gguf").symlink_to(folder / "real" / f"blob{number}")
    secret = folder / "keys.json"
    secret.write_text("secret")
    Path(f"{secret}.link").symlink_to(secret)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.engine_worker.confinement.intruder"),
            *(str(folder / "m-00001-of-00002.gguf"), str(secret), str(os.getpid())),
        ],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@needs_kernel
def test_nothing_gets_out_of_a_confined_process(report: dict[str, Any]) -> None:
    assert report["missing"] == {}
    assert {name: end for name, end in report["attempts"].items() if end != "refused"} == {}


@needs_kernel
def test_a_confined_process_has_what_a_worker_needs(report: dict[str, Any]) -> None:
    assert {name: end for name, end in report["needed"].items() if end != "done"} == {}


def test_required_and_not_in_force_is_no_worker() -> None:
    lacking = Confined(("privileges",), {"files": "an old kernel"})
    with pytest.raises(ModelLoadError, match="files: an old kernel"):
        require(ModelConfig(confinement=Confinement.REQUIRED), lacking)
    require(ModelConfig(confinement=Confinement.AUTO), lacking)
    require(ModelConfig(confinement=Confinement.REQUIRED), Confined(("privileges",)))


def test_what_one_part_lacks_is_missing_from_both() -> None:
    both = Confined(("a", "b"), {"c": "old"}).joined(Confined(("d",), {"a": "gone"}))
    assert both == Confined(("b", "d"), {"c": "old", "a": "gone"})


def test_a_kernel_without_landlock_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    monkeypatch.setattr(syscalls, "is_available", lambda: False)
    missing = abilities().missing
    assert missing.keys() == {"files", "TCP", "system calls"}
    monkeypatch.setattr(landlock, "version", lambda: 3)
    assert abilities().missing.keys() == {"TCP", "system calls"}


def test_the_files_of_a_model_are_all_that_it_names(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("")
    model = ModelConfig(
        model_path="/m/a-00001-of-00003.gguf",
        draft_model_path="/m/d.gguf",
        adapters=("x=/l/x.gguf", "/l/y.gguf"),
        chat_template=str(template),
    )
    assert list(needs.model_files(model)) == [
        *(f"/m/a-0000{number}-of-00003.gguf" for number in (1, 2, 3)),
        *("/m/d.gguf", "/l/x.gguf", "/l/y.gguf", str(template)),
    ]
    assert list(needs.model_files(ModelConfig(chat_template="chatml"))) == []


def test_no_rule_opens_the_home_folder_because_a_library_lies_in_it(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path / "home"), "LD_LIBRARY_PATH": f"{tmp_path}:/opt/lib"}
    found = needs.rules(None, environ, [str(tmp_path / "home" / "lib.so"), "/opt/x/lib.so"])
    readable = {rule.path for rule in found if rule.rights != LIST}
    assert {"/opt/lib", "/opt/x", "/usr"} <= readable
    assert not readable & {str(tmp_path), str(tmp_path / "home"), "/", "/tmp", "/home", "/root"}
    assert Rule("/etc/passwd", READ) in found
    assert not {rule for rule in found if rule.path.startswith("/etc/shadow")}


def test_a_process_without_a_model_has_no_devices() -> None:
    found = needs.rules(None, {"HOME": "/root"}, [])
    assert not {rule for rule in found if rule.path.startswith("/dev")}


@pytest.mark.parametrize("there", [False, True])
def test_shared_memory_and_drivers_caches_are_for_gpus(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setattr(needs, "has_gpu", lambda: there)
    found = needs.rules(ModelConfig(model_path="/m/a.gguf"), {"HOME": "/root"}, [])
    opened = {rule.path for rule in found}
    assert {"/dev/shm", "/root/.nv"} & opened == ({"/dev/shm", "/root/.nv"} if there else set())
    assert "/dev/null" in opened
    openmp = needs.rules(ModelConfig(), {"HOME": "/root"}, ["/opt/x/libiomp5.so"])
    assert "/dev/shm" in {rule.path for rule in openmp}


class Libc:
    """A process with these capabilities, whose service manager forbids to change them."""

    def __init__(self, held: int) -> None:
        self._held = held

    def capget(self, header: bytes, data: Any) -> int:
        struct.pack_into("=6I", data, 0, self._held, self._held, 0, 0, 0, 0)
        return 0

    def capset(self, header: bytes, data: bytes) -> int:
        return -1


@pytest.mark.parametrize(("held", "is_confined"), [(0, True), (1 << 14, True), (1 << 21, False)])
def test_a_process_without_capabilities_to_drop_is_confined(
    monkeypatch: pytest.MonkeyPatch, held: int, is_confined: bool
) -> None:
    monkeypatch.setattr(capabilities.ctypes, "CDLL", lambda *_, **__: Libc(held))
    with contextlib.nullcontext() if is_confined else pytest.raises(landlock.NotConfined):
        capabilities.drop()
