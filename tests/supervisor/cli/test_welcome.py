import os
from pathlib import Path

import pytest

from supervisor.cli.welcome import machine_awaited, welcome
from supervisor.runtime_dir import RuntimeDir


@pytest.mark.parametrize(
    ("facts", "path"),
    [
        ({}, "/v1/chat/completions"),
        ({"generates": None, "embedding_size": None}, "/v1/chat/completions"),
        ({"generates": True, "embedding_size": 8}, "/v1/chat/completions"),
        ({"generates": False, "embedding_size": 8}, "/v1/embeddings"),
        ({"generates": False, "embedding_size": 0}, "/v1/rerank"),
    ],
)
def test_the_first_request_is_one_that_the_model_can_answer(
    facts: dict[str, object], path: str, tmp_path: object
) -> None:
    worker = {"model": "m", "n_ctx": 512, **facts}
    status = {"front": {"addresses": ["http://127.0.0.1:1"]}, "workers": [worker]}
    text = "\n".join(welcome(status, {}, RuntimeDir.find(str(tmp_path))))
    assert f"curl http://127.0.0.1:1{path}" in text
    assert ("chat" in text) == (path == "/v1/chat/completions")


def test_a_start_without_a_machine_says_what_it_waits_for() -> None:
    front = {"condition": {"detail": "waiting for a machine: none has joined"}}
    status = {"front": front, "hosts": [], "workers": [{"state": "placing"}]}
    assert machine_awaited(status) == (
        "waiting for a machine: none has joined; `hosts invite FILE` lets one join"
    )
    assert machine_awaited(status | {"hosts": [{"machine": "a"}]}) == front["condition"]["detail"]
    status["workers"] = [{"state": "placing"}, {"state": "loading"}]
    assert machine_awaited(status) == ""


def test_a_model_of_several_workers_has_one_line_with_what_a_ready_one_gives(
    tmp_path: object,
) -> None:
    workers = [
        {"model": "m", "state": "placing", "n_ctx": 0},
        {"model": "m", "state": "ready", "n_ctx": 512},
        {"model": "m", "state": "loading", "n_ctx": 0},
    ]
    status = {"front": {"addresses": ["http://127.0.0.1:1"]}, "workers": workers}
    lines = welcome(status, {"m": 512}, RuntimeDir.find(str(tmp_path)))
    context = [line.split(maxsplit=1)[1] for line in lines if line.startswith("context")]
    assert context == ["512 tokens for each request"]


def test_the_token_is_printed_but_not_into_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RuntimeDir.find(str(tmp_path))
    folder.admin_token.write_text("sesame")
    status = {"front": {"addresses": ["http://127.0.0.1:1/"]}, "workers": []}

    def admin() -> str:
        (line,) = (one for one in welcome(status, {}, folder) if one.startswith("admin"))
        return line.split(maxsplit=1)[1]

    assert admin() == "http://127.0.0.1:1/?token=sesame"
    here = os.fstat(1)
    monkeypatch.setenv("JOURNAL_STREAM", f"{here.st_dev}:{here.st_ino}")
    assert admin() == f"http://127.0.0.1:1/?token=$(cat {folder.admin_token})"
