"""From a reference to files, and from a server's words to a safe name."""

import pytest

from gpufc.errors import ConfigError
from supervisor.downloads.wanted import (
    HUB,
    RepoFile,
    RepoRef,
    WantedFile,
    base_name,
    chosen,
    digest,
    is_of_hub,
    listed,
    reference,
)

FILES = [
    RepoFile(name, 1, None)
    for name in ("m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-Q4_0.gguf", "mmproj-m-F16.gguf")
]
PARTS = [RepoFile(f"q/m-{no:05d}-of-00003.gguf", 1, None) for no in (1, 2, 3)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("o/r", RepoRef("o/r", "main", None)),
        ("hf:o/r:Q8_0", RepoRef("o/r", "main", "Q8_0")),
        ("o/r@v1.0:m.gguf", RepoRef("o/r", "v1.0", "m.gguf")),
        ("https://h/a%20b.gguf?x=1", WantedFile("https://h/a%20b.gguf?x=1", "a b.gguf")),
    ],
)
def test_a_reference_is_a_repository_or_a_url(text: str, expected: object) -> None:
    assert reference(text) == expected


@pytest.mark.parametrize("text", ["", "model", "o/r/x", "https://h/page.html", "https://h/"])
def test_other_words_are_no_reference(text: str) -> None:
    with pytest.raises(ConfigError):
        reference(text)


@pytest.mark.parametrize(
    "name",
    ["../../etc/x.gguf", "/abs/x.gguf", "C:\\models\\x.gguf", "a/../x.gguf"],
)
def test_only_the_base_name_of_a_path_counts(name: str) -> None:
    assert base_name(name) == "x.gguf"


@pytest.mark.parametrize(
    "name", ["x.bin", "..", ".x.gguf", "x.gguf/..", "a\nb.gguf", "x" * 300 + ".gguf"]
)
def test_a_name_that_is_no_plain_gguf_file_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        base_name(name)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (None, "m-Q4_K_M.gguf"),
        ("q8_0", "m-Q8_0.gguf"),
        ("Q4_0", "m-Q4_0.gguf"),
        ("mmproj", "mmproj-m-F16.gguf"),
    ],
)
def test_one_file_is_chosen(part: str | None, expected: str) -> None:
    (found,) = chosen(FILES, RepoRef("o/r", "main", part), HUB)
    assert found.name == expected
    assert found.url == f"{HUB}/o/r/resolve/main/{expected}"


def test_a_split_model_is_all_its_parts() -> None:
    found = chosen([*PARTS[::-1], *FILES], RepoRef("o/r", "main", "m-00001-of"), HUB)
    assert [one.name for one in found] == [f"m-{no:05d}-of-00003.gguf" for no in (1, 2, 3)]
    with pytest.raises(ConfigError, match="lacks a part"):
        chosen(PARTS[:2], RepoRef("o/r", "main", None), HUB)


@pytest.mark.parametrize(("part", "error"), [("Q2", "no file like"), ("m-Q", "2 such|3 such")])
def test_no_or_several_files_are_an_error_that_names_them(part: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        chosen(FILES, RepoRef("o/r", "main", part), HUB)


@pytest.mark.parametrize("document", [None, {}, [1], [{"type": "file", "path": 1}], "x"])
def test_a_listing_of_nonsense_has_no_files(document: object) -> None:
    assert listed(document) == []


def test_a_checksum_may_name_its_kind() -> None:
    assert digest("sha256:" + "A" * 64) == "a" * 64
    with pytest.raises(ConfigError):
        digest("abc")


def test_a_name_that_would_change_the_terminal_is_not_listed() -> None:
    assert listed([{"type": "file", "path": "\x1b[2J.gguf", "size": 1}]) == []


def test_the_hubs_token_is_for_the_hub_alone() -> None:
    for text in ("o/r", f"{HUB}/o/r/resolve/main/m.gguf"):
        assert is_of_hub(text, HUB)
    for host in ("https://evil.example", f"{HUB}.evil.example", "http://huggingface.co"):
        assert not is_of_hub(f"{host}/m.gguf", HUB)
