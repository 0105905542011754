"""A public suite of conformance tests over three dialects, on the real model.

`llm-comply` brings the descriptions of Open Responses, OpenAI and Anthropic with it, and needs no
network.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.environment import python_with
from tests.clients.table import Seen
from tests.service import Service, service

pytestmark = [pytest.mark.slow, pytest.mark.model]

SUITE = "llm-comply==0.5.0"
FAILS = {
    "image-input": "no picture is read",
    "chat-image-input": "no picture is read",
    "anth-image-input": "no picture is read",
    "error-handling": "a request without a model goes to the default model",
    "chat-error-handling": "a request without a model goes to the default model",
}
"""Tests that fail by design, and why. A test that passes is to be removed from here."""
SKIPS = {"reasoning-summary", "chat-reasoning-summary", "anth-thinking-display"}
"""Tests that the suite leaves out for a model that does not reason."""
FORMATS = {"open-responses": 13, "openai-chat": 9, "anthropic": 9}
"""The suite's formats, with the number of tests."""


@pytest.fixture(scope="module")
def greedy(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Service]:
    """The same answers each time. The penalty ends a list that the demo model would go on with to
    the end of its context, on some processors: the suite wants whole answers."""
    folder = tmp_path_factory.mktemp("comply")
    config = folder / "gpufc.toml"
    config.write_text(
        f'model_path = "{model_path}"\nn_ctx = 2048\naliases = "*"\n'
        "sampling = { temperature = 0.0, repeat_penalty = 1.1 }\n"
    )
    with service(folder / "run", "--config", str(config)) as started:
        yield started


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = python_with(tmp_path_factory.mktemp("suite") / "venv", SUITE)
    return python.parent / "llm-comply"


@pytest.mark.parametrize("form", FORMATS)
def test_the_suite_finds_no_other_fault(
    greedy: Service, suite: Path, seen: Seen, tmp_path: Path, form: str
) -> None:
    options = ["--format", form, "-u", f"{greedy.url}/v1", "-k", "none", "-m", "claude-x"]
    ended = subprocess.run(
        [suite, *options, "--timeout", "200", "--json"],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    found = json.loads(ended.stdout[ended.stdout.index("{") :])["results"]
    assert len(found) == FORMATS[form]
    names = {one["id"] for one in found}
    failed = {one["id"]: one for one in found if one["status"] == "failed"}
    assert set(failed) == FAILS.keys() & names, json.dumps(failed, indent=1)
    assert {one["id"] for one in found if one["status"] == "skipped"} == SKIPS & names
    [name, version] = SUITE.split("==")
    seen.add({name: version}, f"{form}: {len(found) - len(failed) - 1} of {len(found)} pass")
