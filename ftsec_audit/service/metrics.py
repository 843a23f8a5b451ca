"""Numbers for Prometheus. No label holds the name of a model: there are too many of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ftsec_audit.batch.index import Filter, Index
from ftsec_audit.errors import FtsecError
from ftsec_audit.service.queue import Queue
from ftsec_audit.version import VERSION

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (1, 3, 10, 30, 60, 180, 600, 1800, 3600)


class Metrics:
    """Counters of this process, and what queue and index say when they are asked."""

    def __init__(self, queue: Queue, index: Index) -> None:
        self._registry = CollectorRegistry()
        common: dict[str, Any] = {"registry": self._registry}
        self.webhooks = Counter(
            "ftsec_audit_webhooks", "Deliveries of webhooks, by answer", ["origin", "status"], **common
        )
        self.requests = Counter("ftsec_audit_requests", "Requests, by answer", ["status"], **common)
        self.scans = Counter("ftsec_audit_scans", "Scans that ended, by outcome", ["outcome"], **common)
        self.seconds = Histogram("ftsec_audit_scan_seconds", "Duration of scans", buckets=_SECONDS, **common)
        self._registry.register(_Asked(queue, index))

    def scanned(self, event: dict[str, Any]) -> None:
        """An event of a batch."""
        self.scans.labels(event["verdict"] or event["failure"]).inc()
        self.seconds.observe(event["seconds"])

    def render(self) -> bytes:
        return generate_latest(self._registry)


class _Asked(Collector):
    """Gauges; those whose database is away are left out, and `ftsec_audit_up` says so."""

    def __init__(self, queue: Queue, index: Index) -> None:
        self._queue, self._index = queue, index

    def describe(self) -> Iterator[Any]:
        """Nothing: registering asks no database."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        up = GaugeMetricFamily("ftsec_audit_up", "Whether queue and index answer", labels=["version"])
        try:
            found = [*self._of_queue(), *self._of_index()]
            up.add_metric([VERSION], 1)
        except FtsecError:
            found = []
            up.add_metric([VERSION], 0)
        yield from (up, *found)

    def _of_queue(self) -> Iterator[GaugeMetricFamily]:
        items = GaugeMetricFamily("ftsec_audit_queue", "References in the queue", labels=["state"])
        for state, n in self._queue.counts().items():
            items.add_metric([state], n)
        oldest = self._queue.oldest()
        yield items
        yield GaugeMetricFamily("ftsec_audit_queue_oldest_seconds", "Longest wait in the queue", value=oldest)

    def _of_index(self) -> Iterator[GaugeMetricFamily]:
        reports = GaugeMetricFamily(
            "ftsec_audit_reports", "Stored reports, by verdict of the default policy", labels=["verdict"]
        )
        for verdict, n in self._index.verdicts().items():
            reports.add_metric([verdict], n)
        failed = self._index.count(Filter(failed=True))
        yield reports
        yield GaugeMetricFamily("ftsec_audit_without_report", "Artifacts without a report", value=failed)
