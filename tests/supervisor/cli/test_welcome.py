import pytest

from supervisor.cli.welcome import welcome
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
