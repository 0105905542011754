"""Models that the server asks for: only by the operator's leave, only whole and right ones."""

from pathlib import Path

import pytest

from gpufc.config import Config, FleetConfig
from supervisor.fabric import offers
from supervisor.fabric.messages import DownloadStatus, PodModel
from supervisor.fabric.offers import Downloads, Offer
from tests.fakes.control_server import ControlServer
from tests.supervisor.dispatch.fakes import until
from tests.supervisor.downloads.server import CONTENT, DIGEST, hub
from tests.supervisor.fabric.conftest import machine

pytestmark = pytest.mark.usefixtures("quick")

HTTPS = "https://models.example/m.gguf"


def pod(**fields: object) -> PodModel:
    given = {
        "pod_id": 0,
        "model_name": "m.gguf",
        "download_url": HTTPS,
        "checksum": f"sha256:{DIGEST}",
        "expected_size": len(CONTENT),
    }
    return PodModel(**(given | fields))  # type: ignore[arg-type]


def test_only_the_base_name_of_a_model_is_taken() -> None:
    (found,) = offers.offers([pod(model_name="/root/.ssh/../m.gguf")])
    assert (found.file.name, found.file.sha256) == ("m.gguf", DIGEST)


@pytest.mark.parametrize(
    "fields",
    [
        {"model_name": None},
        {"model_name": "qwen3:8b"},
        {"model_name": "m.bin"},
        {"download_url": None},
        {"download_url": "http://models.example/m.gguf"},
        {"download_url": "file:///etc/passwd"},
        {"checksum": None},
        {"checksum": "abc"},
    ],
)
def test_other_models_are_refused(fields: dict[str, object]) -> None:
    assert offers.offers([pod(**fields)]) == []


async def test_nothing_is_downloaded_without_the_operators_leave(server: ControlServer) -> None:
    server.pods = [pod()]
    async with machine(server) as joined:
        await server.joined()
        assert server.logins[0].auto_models is False
        assert joined.client.status().downloaded == ()


@pytest.mark.parametrize(
    ("checksum", "last"), [(DIGEST, DownloadStatus.COMPLETED), ("0" * 64, DownloadStatus.FAILED)]
)
async def test_a_model_is_downloaded_and_the_server_told(
    server: ControlServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    checksum: str,
    last: DownloadStatus,
) -> None:
    async with hub() as files:
        made = offers.offer

        def local(given: PodModel, name: str) -> Offer:
            found = made(given, name)
            file = type(found.file)(
                f"{files.url}/m.gguf", found.file.name, found.file.size, found.file.sha256
            )
            return Offer(file, found.model_name)

        monkeypatch.setattr(offers, "offer", local)
        server.pods = [pod(checksum=checksum)]
        fleet = FleetConfig(models_dir=str(tmp_path))
        async with machine(server, fleet=fleet, accept_models=True) as joined:
            await server.joined()
            assert server.logins[0].auto_models is True
            await server.until(lambda: server.downloads and server.downloads[-1].status is last)
            is_there = last is DownloadStatus.COMPLETED
            assert (tmp_path / "m.gguf").exists() == is_there
            assert joined.client.status().downloaded == (("m.gguf",) if is_there else ())
            assert server.downloads[-1].model_name == "m.gguf"
            if is_there:
                assert server.downloads[-1].percentage == 100.0


async def test_a_stop_ends_a_download(tmp_path: Path) -> None:
    async def tell(_message: object) -> None:
        """There is no session."""

    downloads = Downloads(bytes(16), tmp_path, tell)
    downloads.take([pod()])
    await until(lambda: downloads._work is not None)
    await downloads.stop()
    assert downloads.downloaded == ()


def test_the_default_is_to_accept_nothing() -> None:
    assert Config().fabric.accept_models is False
