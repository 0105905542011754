"""`bench`, from the command line, against a small service."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from supervisor.cli import cli
from supervisor.control.client import ControlClient
from tests.supervisor.cli.fake_service import FakeService, fake_service
from tests.supervisor.control.fake_front import document

SMALL = ["--requests", "4", "--streams", "2", "--output-tokens", "3", "--prompt-tokens", "5"]


@pytest.fixture
def service() -> Iterator[tuple[FakeService, str]]:
    with fake_service() as made:
        yield made


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bench", *SMALL, *arguments], standalone_mode=True)


def test_it_shows_figures_and_writes_files(
    service: tuple[FakeService, str], tmp_path: Path
) -> None:
    fake, url = service
    plot, figures = tmp_path / "p.svg", tmp_path / "f.json"
    result = bench("--url", url, "--greedy", "--json", str(figures), "--plot", str(plot))
    assert result.exit_code == 0, result.output
    assert "4 of 4 requests succeeded" in result.stdout
    assert json.loads(figures.read_text())["figures"]["output_tokens"] == 12
    assert plot.read_text().startswith("<svg")
    counted = fake.seen[2:]  # after the warm-up
    assert [(b["max_tokens"], b["ignore_eos"], b["temperature"]) for b in counted] == [
        (3, True, 0.0)
    ] * 4
    assert all("model" not in body for body in fake.seen)


def test_without_a_url_it_measures_the_running_front(
    service: tuple[FakeService, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, url = service

    def status(_: ControlClient) -> dict[str, Any]:
        found = document()
        found["front"]["addresses"] = [url]
        return found

    monkeypatch.setattr(ControlClient, "status", status)
    monkeypatch.setenv("GPUFC_API_KEY", "secret")
    assert bench("--model", "m").exit_code == 0
    assert {body["model"] for body in fake.seen} == {"m"}
    assert set(fake.headers) == {"Bearer secret"}


def test_a_server_that_lists_its_models_is_asked_for_the_first(
    service: tuple[FakeService, str],
) -> None:
    fake, url = service
    fake.models = ["one", "two"]
    assert bench("--url", url).exit_code == 0
    assert {body["model"] for body in fake.seen} == {"one"}


def test_a_strict_server_gets_no_field_that_is_not_openais(
    service: tuple[FakeService, str],
) -> None:
    fake, url = service
    assert bench("--url", url, "--strict").exit_code == 0
    assert not {"ignore_eos", "top_k", "min_p"} & fake.seen[-1].keys()


def test_nothing_runs(tmp_path: Path) -> None:
    result = bench("--runtime-dir", str(tmp_path / "none"))
    assert result.exit_code == 4
    assert "nothing runs" in result.stderr


def test_only_failures_are_exit_code_4_with_their_messages(
    service: tuple[FakeService, str],
) -> None:
    fake, url = service
    fake.refusal = (503, "too busy")
    result = bench("--url", url)
    assert result.exit_code == 4
    assert "4 × refused" in result.stdout
    assert "time to first token" not in result.stdout
    assert "503: too busy" in result.stderr


def test_some_failures_are_shown_and_it_is_still_a_measurement(
    service: tuple[FakeService, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, url = service
    frames = fake.frames

    def every_second() -> Iterator[bytes]:
        fake.break_with = "lost" if len(fake.seen) % 2 else None
        return frames()

    monkeypatch.setattr(fake, "frames", every_second)
    result = bench("--url", url, "--streams", "1")
    assert result.exit_code == 0
    assert "2 × error event" in result.stdout
    assert "lost" in result.stderr


@pytest.mark.parametrize("option", [["--streams", "0"], ["--rate", "0"], ["--api", "x"]])
def test_bad_usage(option: list[str]) -> None:
    assert bench("--url", "http://127.0.0.1:1", *option).exit_code == 2
