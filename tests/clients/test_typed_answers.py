"""Typed answers, calls and streams of public clients over the real model, as their documentation
shows them.

Each script `cases_…` has named cases. A case holds a client's own types to the answer, so it does
not depend on what the small model writes; the others stand in `FAILS`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environment import npm_with, printed, python_with
from tests.clients.table import Seen
from tests.service import Service, service

pytestmark = [pytest.mark.slow, pytest.mark.model]

SCRIPTS = Path(__file__).parent / "scripts"
PYTHON = {
    "cases_openai.py": ("openai",),
    "cases_langchain.py": ("langchain-openai",),
    "cases_instructor.py": ("instructor",),
    "cases_pydantic_ai.py": ("pydantic-ai-slim[openai]",),
}
IN_WORDS = "the client tells the model of its schema in words only"
IS_OPEN = "the client's schema requires no member, and the model has left it out"
FREE = "the client lets the model answer in text"
FAILS = {
    "cases_openai.py": {},
    "cases_openai.mjs": {},
    "cases_langchain.py": dict.fromkeys(
        (f"json_mode{how}" for how in ("", ", streamed", ", asynchronous", ", with the message")),
        IN_WORDS,
    ),
    "cases_instructor.py": {
        "json_mode, whole": IN_WORDS,
        "markdown_json_mode, whole": IN_WORDS,
        "tool_call, iterable": IS_OPEN,
        "tools_strict, iterable": IS_OPEN,
        "json_schema_mode, iterable": IS_OPEN,
        "parallel calls": FREE,
    },
    "cases_pydantic_ai.py": dict.fromkeys(
        (
            f"{many}prompted output{s}, {api}{how}"
            for many, s in (("", ""), ("several ", "s"))
            for api in ("chat", "responses")
            for how in ("", ", streamed")
        ),
        IN_WORDS,
    ),
}
"""Cases that depend on what the small model writes, and why. Such a case may pass."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("typed") / "run"
    arguments = ("--model-path", str(model_path), "--n-ctx", "4096")
    with service(folder, *arguments) as started:
        yield started


def held_to(found: Any, script: str, seen: Seen) -> None:
    """Every case but the known ones has passed."""
    known = FAILS[script]
    failed = {name: raised for name, raised in found["cases"].items() if raised}
    assert failed.keys() <= known.keys(), json.dumps(failed, indent=1)
    n_passed = len(found["cases"]) - len(failed)
    seen.add(found["versions"], f"typed answers: {n_passed} of {len(found['cases'])} cases pass")
    own = dict([next(iter(found["versions"].items()))])
    for name in failed:
        seen.add(own, f"{name}: fails, {known[name]}")


@pytest.mark.parametrize("script", PYTHON)
def test_a_python_client_gets_its_own_types(
    small: Service, seen: Seen, tmp_path: Path, script: str
) -> None:
    python = python_with(tmp_path / "venv", *PYTHON[script])
    held_to(printed(python, SCRIPTS / script, small.url), script, seen)


def test_openai_s_javascript_client_gets_its_own_types(
    small: Service, seen: Seen, tmp_path: Path
) -> None:
    folder = npm_with(tmp_path / "npm", "openai", "zod")
    # packages are found from where the script is
    script = folder / "cases_openai.mjs"
    script.write_bytes((SCRIPTS / script.name).read_bytes())
    found = printed("node", script, small.url, cwd=folder)
    held_to(found, script.name, seen)
