"""A scrape, read by Prometheus' own parser."""

from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


class Scrape:
    """The series of one text by sample name and labels."""

    def __init__(self, text: str) -> None:
        self.families: dict[str, Metric] = {}
        self.values: dict[tuple[str, Labels], float] = {}
        for family in text_string_to_metric_families(text):
            assert family.name not in self.families
            self.families[family.name] = family
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self.values
                self.values[key] = sample.value

    def __getitem__(self, name: str) -> float:
        """The sum of a name's series."""
        found = [value for (of, _), value in self.values.items() if of == name]
        assert found, name
        return sum(found)

    def labelled(self, name: str, /, **labels: str) -> float:
        """The one series with these labels."""
        return self.values[name, frozenset(labels.items())]

    def buckets(self, name: str, /, **labels: str) -> list[float]:
        """The cumulative counts of a histogram, in the order of its bounds."""
        wanted = set(labels.items())
        found = [
            (float(dict(of)["le"]), value)
            for (bucket, of), value in self.values.items()
            if bucket == f"{name}_bucket" and wanted <= of
        ]
        return [value for _, value in sorted(found)]

    def sample_names(self) -> set[str]:
        return {name for name, _ in self.values}


def label_names(metrics: Iterable[Metric], name: str) -> set[str]:
    """The labels of a family's series, without a histogram's `le`."""
    (family,) = (one for one in metrics if one.name == name)
    return {label for sample in family.samples for label in sample.labels} - {"le"}
