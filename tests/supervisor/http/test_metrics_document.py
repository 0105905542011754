"""`API.md` names the series of `/metrics` with their types and labels."""

from tests.supervisor.http.test_api_document import names, rows
from tests.supervisor.metrics.scrape import label_names
from tests.supervisor.metrics.test_exposition import figures, scraped


def test_every_series_is_documented_with_its_type_and_labels() -> None:
    documented = {
        name: (row[1], set(names(row[2]))) for row in rows("`/metrics`") for name in names(row[0])
    }
    families = scraped(figures()).families
    assert documented == {
        name + "_total" * (family.type == "counter"): (
            family.type,
            label_names(families.values(), name),
        )
        for name, family in families.items()
    }
