"""The service does what its OpenAPI document says, by schemathesis in all its phases."""

from pathlib import Path

import pytest

from tests.clients.environment import done, python_with
from tests.clients.table import Seen
from tests.integration.fake_service import FAKE
from tests.service import service

pytestmark = pytest.mark.slow

SETTINGS = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 501, 503]
"""
CHECKS = ["not_a_server_error", "response_schema_conformance", "content_type_conformance"]
ENDLESS_OR_GRAVE = "^/(admin|dashboard/events)"
LIMITS = ["--max-examples", "20", "--max-time", "400", "--request-timeout", "60", "--workers", "2"]


@pytest.mark.timeout(600)
def test_no_answer_departs_from_the_description(seen: Seen, tmp_path: Path) -> None:
    program = python_with(tmp_path / "venv", "schemathesis").parent / "schemathesis"
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    # a small context, so that an answer without a limit ends soon
    environ = FAKE | {"GPUFC_FAKE_SCRIPT": "step_ms=0", "GPUFC_N_CTX": "512"}
    with service(tmp_path / "run", environ=environ) as running:
        done(
            *(program, "--config-file", "schemathesis.toml"),
            *("run", f"{running.url}/openapi.json", "--exclude-path-regex", ENDLESS_OR_GRAVE),
            *("--checks", ",".join(CHECKS), "--seed", "1", "--max-redirects", "0"),
            *("--continue-on-failure", "--no-color", *LIMITS),
            cwd=tmp_path,
            timeout_s=500,
        )
        assert running.worker()["restarts"] == 0
    version = done(program, "--version", cwd=tmp_path).split()[-1]
    seen.add({"schemathesis": version}, "all phases over /openapi.json")
