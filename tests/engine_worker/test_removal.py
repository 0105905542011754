"""An optimisation can be taken out: few lines outside its own module name it.

The lines are those that a removal has to change. `engine/NOTES.md` has the drill.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("engine_worker", "gpufc", "supervisor")
MOST_LINES = 3

OPTIMISATIONS = {
    "scheduling/placeholders": r"PlaceholderRows|PlaceholderSlots|placeholders: Pays",
    "scheduling/overlapped_replays": r"OverlappedReplays",
    "scheduling/whole_replays": r"WholeReplays|whole_replays_token_s: float",
    "scheduling/fixed_pass": r"FixedPass",
    "scheduling/equal_chunks": r"EqualChunks",
    "scheduling/arrivals": r"BeginTogether",
    "scheduling/early_tokens": r"EarlyTokens",
    "scheduling/newcomers": r"NewcomersFirst",
    "scheduling/adapter_turns": r"AdapterTurns",
    "engine/step_ahead": r"StepAhead",
    "backend/llama/device_top_k": r"DeviceTopK|device_top_k: Pays",
    "backend/llama/host_top_k": r"HostTopK|host_top_k: Pays",
    "sampling/few_allowed": r"FewAllowed|few_tokens",
    "sampling/argmax": r"Argmax\(",
    "constraints/foreseen_masks": r"ForeseenMasks",
    "speculation/per_step": r"PerStepSpeculator",
    "speculation/per_stretch": r"PerStretchSpeculator",
    "speculation/quiet_stretches": r"QuietStretches",
}
"""By module: the names of its classes, of its functions that others call, and its row of tuning."""


def _lines_outside(module: Path, names: str) -> list[str]:
    dotted = ".".join(module.relative_to(ROOT).with_suffix("").parts)
    pattern = re.compile(rf"\b(?:{re.escape(dotted)}\b|{names})")
    return [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if path != module
        for line in path.read_text().splitlines()
        if pattern.search(line)
    ]


@pytest.mark.parametrize("name", OPTIMISATIONS)
def test_few_lines_outside_its_module_name_an_optimisation(name: str) -> None:
    module = ROOT / "engine_worker" / f"{name}.py"
    assert module.is_file()
    found = _lines_outside(module, OPTIMISATIONS[name])
    assert 0 < len(found) <= MOST_LINES, found
