"""`/admin`: its access, the folders of models, and its answers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gpufc.config import Config, ModelConfig, ServerConfig
from gpufc.errors import (
    EngineUnavailable,
    NotFound,
    Overloaded,
    PermissionDenied,
    RequestError,
    SwapRefused,
)
from supervisor.fleet.operation import Operation
from supervisor.fleet.port import ModelChange, OnReplacement
from supervisor.http.edge import run_token
from supervisor.http.edge.context import SERVICES
from supervisor.http.edge.server import FrontRunner
from supervisor.http.routes import create_web_app
from supervisor.http.service.admin import allowed_model, allowed_places
from tests.supervisor.cli.files import gguf
from tests.supervisor.http.conftest import Answer, Service

JSON = {"Content-Type": "application/json"}


class FakeOperator:
    """Implements `http.context.Operator`: records the calls, and ends them as `end` says."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.end: RequestError | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    def restart(self, worker: str | None, now: bool = False) -> Operation:
        if worker == "absent":
            raise NotFound("there is no worker 'absent'", param="worker")
        self.asked.append(("restart", worker, now))
        return Operation("restart", self._work)

    def swap(self, name: str | None, change: ModelChange) -> Operation:
        self.asked.append(("swap", name, change))
        return Operation("swap", self._work)

    async def _work(self, tell: OnReplacement) -> None:
        await self.goes_on.wait()
        self.asked.append("done")
        if self.end is not None:
            raise self.end


class Admin:
    """A front with an operator and the token of its run."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self.operator = FakeOperator()
        self.folder = folder
        self.token = run_token.make(folder / "token")
        services = msgspec.structs.replace(service.app[SERVICES], operator=self.operator)
        service.app = create_web_app(services, run_token.by_token(self.token))
        service.runner = FrontRunner(service.app, service.config.limits)

    async def post(self, route: str, body: Any = None, token: str | None = "") -> Answer:
        """With the right token, another one, or with None without any."""
        headers = dict(JSON)
        if token is not None:
            headers["Authorization"] = f"Bearer {token or self.token}"
        return await self.service.post(f"/admin/{route}", body or {}, headers=headers)


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    (tmp_path / "models").mkdir()
    gguf(tmp_path / "models" / "a.gguf")
    gguf(tmp_path / "models" / "b.gguf")
    gguf(tmp_path / "elsewhere.gguf")
    path = str(tmp_path / "models" / "a.gguf")
    service = Service(Config(models={"default": ModelConfig(model_path=path)}))
    made = Admin(service, tmp_path)
    await service.start()
    service.fleet.start_worker()
    yield made
    await service.stop()


@pytest.mark.parametrize("token", [None, "wrong", "wröng", "x" * 4000])
async def test_without_the_runs_token_nothing_is_done(admin: Admin, token: str | None) -> None:
    for route in ("restart", "swap"):
        answer = await admin.post(route, {"model_path": "/x"}, token)
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        assert run_token.REMEDY in answer.error["message"]
    assert admin.operator.asked == []


async def test_a_token_of_any_bytes_is_a_wrong_one(admin: Admin) -> None:
    host, port = admin.service.address
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(
        b"POST /admin/restart HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
    )
    status = await reader.readline()
    writer.close()
    assert status.split()[1] == b"401"


async def test_a_key_that_openai_clients_send_always_is_no_hindrance_elsewhere(
    admin: Admin,
) -> None:
    headers = JSON | {"Authorization": "Bearer sk-none"}
    body = {"prompt": "hello"}
    assert (await admin.service.post("/v1/completions", body, headers=headers)).status == 200


def test_the_token_lies_in_a_file_of_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("left by an earlier run")
    token = run_token.make(path)
    assert path.read_text() == token
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(token) >= 32
    assert run_token.known(path) == token
    path.unlink()
    assert run_token.known(path) not in ("", token)


async def test_restart_answers_with_the_workers_that_serve(admin: Admin) -> None:
    answer = await admin.post("restart", {"worker": "default-0", "now": True})
    assert (answer.status, answer.json["status"]) == (200, "ready")
    assert answer.json["workers"][0]["state"] == "ready"
    assert admin.operator.asked == [("restart", "default-0", True), "done"]


async def test_swap_passes_on_its_options(admin: Admin) -> None:
    path = str(admin.folder / "models" / "b.gguf")
    body = {"model_path": path, "name": "it", "n_ctx": 64, "n_gpu_layers": 0}
    assert (await admin.post("swap", body)).status == 200
    within = tuple(map(str, allowed_places(admin.service.config)))
    change = ModelChange(model_path=path, n_ctx=64, n_gpu_layers=0, within=within)
    assert admin.operator.asked == [("swap", "it", change), "done"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (SwapRefused("cut off; the model before goes on serving"), 409, "swap_refused"),
        (Overloaded("being replaced", retry_after_s=5.0), 503, "overloaded"),
        (EngineUnavailable("died", retry_after_s=5.0), 503, "engine_unavailable"),
    ],
)
async def test_why_it_failed_is_the_answer(
    admin: Admin, error: RequestError, status: int, code: str
) -> None:
    admin.operator.end = error
    answer = await admin.post("swap", {"model_path": str(admin.folder / "models" / "b.gguf")})
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.error["message"] == str(error)
    assert ("Retry-After" in answer.headers) is (status == 503)


@pytest.mark.parametrize(
    "path",
    [
        "{folder}/elsewhere.gguf",
        "{folder}/models/../elsewhere.gguf",
        "{folder}/models/out.gguf",
        "{folder}/models",
        "{folder}/models/missing.gguf",
        "/etc/passwd",
        "relative.gguf",
        "\x00",
        "/" + "a/" * 2000,
    ],
)
async def test_models_come_from_allowed_folders_only(admin: Admin, path: str) -> None:
    (admin.folder / "models" / "out.gguf").symlink_to(admin.folder / "elsewhere.gguf")
    answer = await admin.post("swap", {"model_path": path.format(folder=admin.folder)})
    assert (answer.status, answer.error["code"]) == (403, "permission_denied")
    assert "elsewhere" not in answer.error["message"]
    assert admin.operator.asked == []


async def test_model_dirs_are_the_allowed_folders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        gguf(tmp_path / name / "m.gguf")
    dirs = f"{tmp_path}/one:{tmp_path}/two:/no/such/folder"
    service = Service(Config(server=ServerConfig(model_dirs=dirs)))
    admin = Admin(service, tmp_path)
    await service.start()
    for name in ("one", "two"):
        body = {"model_path": str(tmp_path / name / "m.gguf")}
        assert (await admin.post("swap", body)).status == 200
    gguf(tmp_path / "m.gguf")
    assert (await admin.post("swap", {"model_path": str(tmp_path / "m.gguf")})).status == 403
    await service.stop()


def cached(tmp_path: Path, *names: str) -> Path:
    """A cache as the Hugging Face hub's: a folder of links into a folder of files."""
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in names:
        gguf(blobs / f"hash-of-{name}")
        (snapshot / name).symlink_to(Path("..") / ".." / "blobs" / f"hash-of-{name}")
    return snapshot


def config_of(path: Path | str, model_dirs: str | None = None) -> Config:
    server = ServerConfig(model_dirs=model_dirs)
    return Config(server=server, models={"default": ModelConfig(model_path=str(path))})


def allowed(path: Path, config: Config, *served: str) -> Path:
    return allowed_model(str(path), allowed_places(config, served))


def test_a_served_model_and_its_neighbours_in_a_cache_of_links_are_allowed(tmp_path: Path) -> None:
    snapshot = cached(tmp_path, "served.gguf", "other.gguf", "tiny-00001-of-00002.gguf")
    gguf(tmp_path / "elsewhere.gguf")
    (snapshot / "out.gguf").symlink_to(tmp_path / "elsewhere.gguf")
    for config in (
        config_of(snapshot / "served.gguf"),
        config_of("/nowhere", model_dirs=str(tmp_path / "hub")),
    ):
        for name in ("served.gguf", "other.gguf", "tiny-00001-of-00002.gguf"):
            # by this name the worker finds the other parts
            assert allowed(snapshot / name, config) == snapshot / name
        with pytest.raises(PermissionDenied):
            allowed(snapshot / "out.gguf", config)


def test_a_file_that_a_worker_serves_is_allowed(tmp_path: Path) -> None:
    gguf(tmp_path / "swapped.gguf")
    config, path = config_of("/nowhere/m.gguf"), tmp_path / "swapped.gguf"
    with pytest.raises(PermissionDenied):
        allowed(path, config)
    assert allowed(path, config, str(path)) == path


def test_a_model_in_the_root_folder_opens_no_other_file(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.symlink_to("/")
    gguf(tmp_path / "m.gguf")
    for model in ("/m.gguf", str(root / "m.gguf")):
        with pytest.raises(PermissionDenied):
            allowed(tmp_path / "m.gguf", config_of(model))


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        ("swap", {}, "model_path"),
        ("swap", {"model_path": ""}, "model_path"),
        ("swap", {"model_path": "/x", "n_ctx": 3}, "n_ctx"),
        ("swap", {"model_path": "/x", "n_gpu_layers": -1}, "n_gpu_layers"),
        ("restart", {"now": "yes"}, "now"),
    ],
)
async def test_a_malformed_request_is_named(
    admin: Admin, route: str, body: dict[str, Any], param: str
) -> None:
    answer = await admin.post(route, body)
    assert (answer.status, answer.error["param"]) == (400, param)


async def test_an_unknown_worker_and_an_unknown_field(admin: Admin) -> None:
    assert (await admin.post("restart", {"worker": "absent"})).status == 404
    assert (await admin.post("restart", {"wrker": "default-0"})).status == 400
    assert admin.operator.asked == []


async def test_who_leaves_stops_nothing(admin: Admin) -> None:
    admin.operator.goes_on.clear()
    asking = asyncio.create_task(admin.post("restart"))
    async with asyncio.timeout(60):
        while not admin.operator.asked:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.005)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    admin.operator.goes_on.set()
    async with asyncio.timeout(60):
        while admin.operator.asked[-1] != "done":  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.005)
