"""The templates of policies over the real model: two workers, one of which is this key's."""

import time
from pathlib import Path

import aiohttp
import pytest

from supervisor.plugins import batching_template, routing_template
from tests.integration.fake_service import complete
from tests.service import Service, service

CONFIG = """
plugins = ["{routing}", "{batching}"]

[models.m]
model_path = "{model}"
n_ctx = 1024
n_threads = 1
replicas = 2
"""

WORKERS = ["m-0", "m-1"]


@pytest.mark.slow
@pytest.mark.model
async def test_a_keys_prompts_are_computed_where_the_template_says(
    tmp_path: Path, model_path: Path
) -> None:
    files = {"routing": routing_template.__file__, "batching": batching_template.__file__}
    config = tmp_path / "my.toml"
    config.write_text(CONFIG.format(model=model_path, **files))
    wanted = min(WORKERS, key=lambda name: routing_template.rank("anonymous", name))
    with service(tmp_path / "run", "--config", str(config)) as running:
        running.wait_all_ready(2)
        async with aiohttp.ClientSession() as session:
            computed_by: list[set[str]] = []
            for n in range(20):
                began, before = time.time(), n_followed(running)
                status, body, _ = await complete(session, running.url, f"{n} foxes", max_tokens=3)
                assert (status, body["usage"]["completion_tokens"] > 0) == (200, True)
                if n_followed(running) == before + 2:  # each of the two policies
                    computed_by.append(running.stepped_since(began))
                if len(computed_by) == 4:
                    break
        assert computed_by == [{wanted}] * 4


def n_followed(running: Service) -> int:
    return sum(row["policy"]["followed"] for row in running.status()["plugins"])
