"""The tests that FINDINGS.md names are there."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NAMED = re.findall(r"`([a-z_0-9/]+\.py)::(\w+)`", (HERE / "FINDINGS.md").read_text())


@pytest.mark.parametrize(("file", "test"), sorted(set(NAMED)), ids=lambda part: part)
def test_a_named_test_is_there(file: str, test: str) -> None:
    assert f"def {test}(" in (HERE.parent / file).read_text()
