"""The words of code and documents: sentences have subjects, and the field's terms are used."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORDS = re.compile(r"\b(nobody|somebody|whoever|as ever|sooner|dearer)\b", re.IGNORECASE)
QUOTED: dict[str, tuple[str, ...]] = {
    "tests/test_words.py": ("nobody|somebody|whoever|as ever|sooner|dearer",),
}
"""Texts that may hold such a word, for each file: prompts, names and other people's sentences."""


def tracked() -> list[Path]:
    """Every Python and Markdown file of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.py", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def found(path: Path) -> list[str]:
    """The lines of a file that hold a word which names no subject."""
    name = str(path.relative_to(ROOT))
    lines = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        for quoted in QUOTED.get(name, ()):
            line = line.replace(quoted, "")
        if WORDS.search(line):
            lines.append(f"{name}:{number}: {line.strip()[:80]}")
    return lines


def test_code_and_documents_name_their_subjects() -> None:
    files = tracked()
    assert Path(__file__) in files
    assert [line for path in files for line in found(path)] == []
