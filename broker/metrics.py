"""The metrics page, at no cost to the hot path: parts count in plain ints, the scrape reads them.

A metric is a name and a callable. The callable returns a number, or a mapping from the values of
one label to numbers. Labels are of a fixed, small set: never a user, a token or an address, which
would tell strangers who talks here and let anybody grow the page without end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

Read = Callable[[], "float | Mapping[str, float]"]

#: What a metric may be divided by. Each has a handful of values that the program itself sets.
LABELS: Final = frozenset({"code", "command", "door", "kind", "outcome", "reason", "state"})
#: Values of one label; more means that something from outside got in, and the metric is left out.
LABEL_VALUES_MAX: Final = 100
_NAME: Final = re.compile(r"kotak_[a-z][a-z0-9_]*[a-z0-9]")


class _Source(NamedTuple):
    family: type[CounterMetricFamily | GaugeMetricFamily]
    name: str
    help: str
    read: Read
    label: str | None


class Metrics(Collector):
    """The broker's metrics, and the page they are read on. Register first, then scrape."""

    def __init__(self) -> None:
        self._sources: list[_Source] = []
        self._names: set[str] = set()
        self._failed_reads = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self.counter(
            "kotak_metrics_failed_reads",
            "Metrics left out of a page because reading them failed",
            lambda: self._failed_reads,
        )

    def counter(self, name: str, help: str, read: Read, *, label: str | None = None) -> None:  # noqa: A002 - Prometheus's own word for it
        """Add a number that only grows; the page calls it ``name`` and ``_total``.

        Errors: ValueError for a name that is taken or not ``kotak_...``, or an unlisted label.
        """
        self._add(_Source(CounterMetricFamily, name.removesuffix("_total"), help, read, label))

    def gauge(self, name: str, help: str, read: Read, *, label: str | None = None) -> None:  # noqa: A002 - Prometheus's own word for it
        """Add a number that goes up and down. Errors: as `counter`."""
        self._add(_Source(GaugeMetricFamily, name, help, read, label))

    def _add(self, source: _Source) -> None:
        if not _NAME.fullmatch(source.name) or source.name in self._names:
            raise ValueError(f"the metric {source.name!r} is taken, or is not kotak_small_letters")
        if source.label is not None and source.label not in LABELS:
            raise ValueError(f"the label {source.label!r} is not one of {sorted(LABELS)}")
        self._names.add(source.name)
        self._sources.append(source)

    def collect(self) -> Iterator[Metric]:
        """Read everything once. A read that fails is left out and counted; the page goes on."""
        for source in self._sources:
            try:
                yield _metric(source)
            except Exception:  # noqa: BLE001 - one part's fault must not blind the operator to the rest
                self._failed_reads += 1

    def exposition(self) -> tuple[bytes, str]:
        """Return the page and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


def _metric(source: _Source) -> Metric:
    value = source.read()
    if source.label is None:
        if isinstance(value, Mapping):
            raise TypeError("a mapping needs a label")
        return source.family(source.name, source.help, value=float(value))
    if not isinstance(value, Mapping):
        raise TypeError("a label needs a mapping")
    # One copy in C: the owner may add a key while the page is written.
    samples = dict(value)
    if len(samples) > LABEL_VALUES_MAX:
        raise ValueError("too many label values")
    family = source.family(source.name, source.help, labels=[source.label])
    for label, number in samples.items():
        family.add_metric([str(label)], float(number))
    return family
