"""The entries of `adapters` in a configuration."""

import pytest

from gpufc.adapters import AdapterFile, adapter_files
from gpufc.errors import ConfigError


def test_a_file_names_its_adapter_unless_a_name_is_given() -> None:
    assert adapter_files(("/a/pirate.gguf", "sql=/b/x=y.gguf")) == (
        AdapterFile("pirate", "/a/pirate.gguf"),
        AdapterFile("sql", "/b/x=y.gguf"),
    )


@pytest.mark.parametrize("entries", [("=x",), ("x=",), ("a=1", "a=2"), ("/p/a.gguf", "a=2")])
def test_an_entry_without_a_part_or_a_name_given_twice_is_refused(entries: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="adapters"):
        adapter_files(entries)
