"""The Grafana dashboard: it shows series that `/metrics` has, by labels that they have."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.supervisor.metrics.scrape import Scrape
from tests.supervisor.metrics.test_exposition import figures, scraped

DASHBOARD = Path(__file__).parent.parent.parent / "scripts/deploy/grafana/dashboard.json"

SELECTOR = re.compile(r"((?:gpufc_|vllm:)\w+)(?:\{([^}]*)\})?")

FOR_PICKERS = "gpufc_endpoint_"
"""Sums of series that are shown, for programs that read no labels."""

TARGET_LABELS = {"job"}
"""Labels that Prometheus adds."""


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


@pytest.fixture(scope="module")
def scrape() -> Scrape:
    return scraped(figures())


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (one["expr"] for one in dashboard["annotations"]["list"])
    yield from (one["definition"] for one in dashboard["templating"]["list"] if "definition" in one)


def labels_of(scrape: Scrape, name: str) -> set[str]:
    return {label for of, labels in scrape.values if of == name for label, _ in labels}


def test_every_series_of_the_dashboard_exists_with_its_labels(
    dashboard: dict[str, Any], scrape: Scrape
) -> None:
    shown = [found for text in expressions(dashboard) for found in SELECTOR.findall(text)]
    assert {name for name, _ in shown} <= scrape.sample_names()
    for name, selector in shown:
        selected = set(re.findall(r"(\w+)=", selector))
        assert selected - TARGET_LABELS <= labels_of(scrape, name), name


def test_every_gpufc_series_is_on_the_dashboard(dashboard: dict[str, Any], scrape: Scrape) -> None:
    shown = {name for text in expressions(dashboard) for name, _ in SELECTOR.findall(text)}
    hidden = [
        name
        for name, family in scrape.families.items()
        if name.startswith("gpufc_")
        and not name.startswith(FOR_PICKERS)
        and not shown & {sample.name for sample in family.samples}
    ]
    assert hidden == []


def test_the_panels_have_numbers_of_their_own_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
