"""A folder's files become the fleet's models, and their changes the roster's."""

from pathlib import Path

from gpufc.config import ModelConfig
from gpufc.errors import ConfigError
from supervisor.roster.folder_watch import FolderWatch


class Fleet:
    def __init__(self) -> None:
        self.added: dict[str, ModelConfig] = {}
        self.taken: set[str] = set()

    def models(self) -> list[str]:
        return list(self.added)

    def add(self, name: str, config: ModelConfig) -> None:
        if name in self.taken:
            raise ConfigError("taken")
        self.added[name] = config


class Roster:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def register(self, model: str) -> None:
        self.calls.append(f"register {model}")

    def renew(self, model: str) -> None:
        self.calls.append(f"renew {model}")

    def forget(self, model: str) -> None:
        self.calls.append(f"forget {model}")


class Watched:
    def __init__(self, folder: Path, *configured: str) -> None:
        self.folder, self.fleet, self.roster = folder, Fleet(), Roster()
        section = ModelConfig(n_ctx=512)
        self.watch = FolderWatch(folder, section, self.fleet, self.roster, configured)

    def look(self, *, is_first: bool = False) -> list[str]:
        self.watch.look(is_first=is_first)
        calls, self.roster.calls = self.roster.calls, []
        return calls


def test_each_file_is_served_with_the_sections_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    watched = Watched(tmp_path)
    assert watched.look(is_first=True) == ["register a"]
    config = watched.fleet.added["a"]
    assert (config.model, config.n_ctx) == ("a", 512)
    assert config.model_path == str(tmp_path / "a.gguf")


def test_files_come_change_and_go(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    path = tmp_path / "a.gguf"
    assert watched.look(is_first=True) == []
    path.write_bytes(b"GGUF")
    assert watched.look() == []
    assert watched.look() == ["register a"]
    path.write_bytes(b"GGUF and more")
    assert watched.look() == []
    assert watched.look() == ["renew a"]
    path.unlink()
    assert watched.look() == ["forget a"]


def test_what_is_served_stays_while_the_folder_cannot_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "a.gguf").write_bytes(b"GGUF")
    watched = Watched(folder)
    watched.look(is_first=True)
    folder.rename(tmp_path / "away")
    assert watched.look() == []
    (tmp_path / "away").rename(folder)
    assert watched.look() == []


def test_a_name_that_is_taken_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    watched = Watched(tmp_path)
    watched.fleet.taken = {"a"}
    assert watched.look(is_first=True) == []
    watched.fleet.taken = set()
    assert watched.look() == ["register a"]


def test_a_file_says_nothing_of_a_configured_model_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF")
    watched = Watched(tmp_path, "a")
    watched.fleet.added["a"] = ModelConfig(model_path="/elsewhere/a.gguf")
    assert watched.look(is_first=True) == []
    path.unlink()
    assert watched.look() == []
