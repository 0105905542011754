"""A filter of answers over a stream whose real worker is killed at each token."""

from pathlib import Path

import aiohttp
import pytest

from tests.integration.fake_service import FAKE, joined, stream
from tests.service import Gains, service
from tests.supervisor.plugins.conftest import SAMPLES

SAID = "My key is sk-ab9 or sk-x."
REDACTED = "My key is [hidden] or [hidden]."


@pytest.mark.slow
async def test_a_kill_at_each_token_leaks_no_secret_and_repeats_no_word(tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text(f'plugins = [{{ use = "{SAMPLES}/redactor.py:Answers", timeout_s = 20.0 }}]')
    with service(tmp_path / "run", "--config", str(config), environ=FAKE) as running:
        gains = Gains(running)
        async with aiohttp.ClientSession() as session:
            for position in range(len(SAID)):
                running.wait_idle()
                once = tmp_path / f"killed-{position}"
                prompt = f"[[say:{SAID}]][[kill@{position} once={once}]]"
                events = await stream(session, running.url, prompt, max_tokens=len(SAID))
                assert once.exists()
                assert joined(events) == REDACTED
        assert gains.restarts() == gains.of("requests", "replayed_total")[0] == len(SAID)
        (row,) = running.status()["plugins"]
        assert (row["counts"]["failures"], row["counts"]["restarts"]) == (0, 0)
