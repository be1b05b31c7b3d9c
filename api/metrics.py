"""Metrics: a closed set. Names, types and labels are here, with what they mean; nothing else is exported.

With several workers every process writes its values into a shared directory and any of them answers for all
(Prometheus multiprocess mode).
"""

import os
from collections.abc import Mapping
from typing import Any, Final, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
    start_http_server,
)

from api.answer import Accepted, Answer, Decided

MetricName = Literal[
    # Counter, by door and outcome: transactions decided and recorded.
    "cordon_decisions",
    # Counter, by door and kind (replay, refused, conflict, unknown, pending, unavailable): other answers.
    "cordon_answers_other",
    # Counter, by kind (label, event): recorded events that follow decisions.
    "cordon_follow_events",
    # Histogram, seconds: HTTP decision request received to response ready, in the service.
    "cordon_decision_seconds",
    # Histogram: transactions decided together.
    "cordon_batch_size",
    # Counter, by part: decisions made without that part.
    "cordon_degraded",
    # Counter, by rule and result (hit): live or shadow rules that hit.
    "cordon_rule_hits",
    # Gauge, by journal: records that are durable but not in Kafka yet.
    "cordon_journal_backlog_records",
    # Gauge, by journal: records that no anchored checkpoint covers yet.
    "cordon_unprotected_records",
    # Gauge, seconds, by journal: how long the oldest record without an anchored checkpoint has been there.
    "cordon_unprotected_seconds",
    # Gauge, seconds: how far Flink was behind at the last decision.
    "cordon_flink_lag_seconds",
    # Counter, by code: events refused at the Kafka door and written to the dead letters.
    "cordon_dead_letters",
    # Counter: open claims recorded as abandoned attempts.
    "cordon_abandoned",
    # Counter, by reason (queue, body, backlog): requests turned away before they were decided.
    "cordon_overload",
    # Counter: submitted batches whose last line is done.
    "cordon_finished_batches",
    # Counter: records shipped to Kafka by the publisher.
    "cordon_published_records",
    # Counter, by topic: records projected into the query store.
    "cordon_projected_records",
    # Counter: decisions of an id that had been decided before (both are kept).
    "cordon_doubled_decisions",
    # Counter: decisions moved from the query store into the warm store.
    "cordon_moved_decisions",
    # Gauge, by brake (a rule, or guard:decline_rate): 1 while it is pulled.
    "cordon_brakes",
    # Counter, by result (delivered, failed): attempts to deliver an event to a receiver.
    "cordon_webhook_attempts",
    # Gauge, by subscription and state (waits, dead): deliveries.
    "cordon_webhook_deliveries",
]

LATENCY_BUCKETS_S: Final = (
    0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip
_LABELS: Final[Mapping[str, tuple[str, tuple[str, ...], str]]] = {
    "cordon_decisions": ("counter", ("door", "outcome"), "transactions decided and recorded"),
    "cordon_answers_other": ("counter", ("door", "kind"), "answers that are no new decision"),
    "cordon_follow_events": ("counter", ("kind",), "labels and lifecycle events recorded"),
    "cordon_decision_seconds": ("latency", (), "HTTP decision, request to response"),
    "cordon_batch_size": ("sizes", ("door",), "events handled together"),
    "cordon_degraded": ("counter", ("part",), "decisions made without a part"),
    "cordon_rule_hits": ("counter", ("rule", "mode"), "rules that hit"),
    "cordon_journal_backlog_records": ("gauge", ("journal",), "durable records not in Kafka yet"),
    "cordon_unprotected_records": ("gauge", ("journal",), "records without an anchored checkpoint"),
    "cordon_unprotected_seconds": ("gauge", ("journal",), "age of the oldest of them"),
    "cordon_flink_lag_seconds": ("gauge", (), "how far Flink was behind at the last decision"),
    "cordon_dead_letters": ("counter", ("code",), "events refused at the Kafka door"),
    "cordon_abandoned": ("counter", (), "open claims recorded as abandoned"),
    "cordon_overload": ("counter", ("reason",), "requests turned away undecided"),
    "cordon_finished_batches": ("counter", (), "submitted batches whose last line is done"),
    "cordon_published_records": ("counter", (), "records shipped to Kafka"),
    "cordon_projected_records": ("counter", ("topic",), "records projected into the query store"),
    "cordon_doubled_decisions": ("counter", (), "decisions of an id decided before"),
    "cordon_moved_decisions": ("counter", (), "decisions moved into the warm store"),
    "cordon_brakes": ("gauge", ("brake",), "brakes that are pulled"),
    "cordon_webhook_attempts": ("counter", ("result",), "attempts to deliver an event"),
    "cordon_webhook_deliveries": ("gauge", ("subscription", "state"), "deliveries that wait or are dead"),
}


class Metrics:
    """The set above on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._children: dict[tuple[str, ...], Any] = {}
        for name, (kind, labels, text) in _LABELS.items():
            if kind == "counter":
                self._counters[name] = Counter(name, text, labels, registry=self.registry)
            elif kind == "gauge":
                self._gauges[name] = Gauge(
                    name, text, labels, registry=self.registry, multiprocess_mode="livemax"
                )
            else:
                buckets = LATENCY_BUCKETS_S if kind == "latency" else (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
                self._histograms[name] = Histogram(
                    name, text, labels, registry=self.registry, buckets=buckets
                )

    def count(self, name: MetricName, *labels: str, by: float = 1) -> None:
        """Add to a counter."""
        self._child(self._counters, name, labels).inc(by)

    def set(self, name: MetricName, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._child(self._gauges, name, labels).set(value)

    def observe(self, name: MetricName, value: float, *labels: str) -> None:
        """Add to a histogram."""
        self._child(self._histograms, name, labels).observe(value)

    def _child(self, metrics: Mapping[str, Any], name: MetricName, labels: tuple[str, ...]) -> Any:
        """The metric under these labels; looking it up in the library takes longer than counting."""
        found = self._children.get((name, *labels))
        if found is None:
            metric = metrics[name]
            found = self._children[name, *labels] = metric.labels(*labels) if labels else metric
        return found

    def text(self) -> bytes:
        """Everything in Prometheus' text format; of all workers where they share a directory."""
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            return generate_latest(registry)
        return generate_latest(self.registry)

    def serve(self, host: str, port: int) -> None:
        """Answer for this process on a port of its own, in a thread; 0: not at all."""
        if port:
            start_http_server(port, host, registry=self.registry)


def count_answer(metrics: Metrics, answer: Answer, door: str) -> None:
    """Count one answer of the engine."""
    if isinstance(answer, Decided) and not answer.replay:
        metrics.count("cordon_decisions", door, answer.record["outcome"])
        for part in answer.record["degraded"]:
            metrics.count("cordon_degraded", part)
        for hit in answer.record["rules"]:
            metrics.count("cordon_rule_hits", hit["id"], hit["mode"])
    elif isinstance(answer, Accepted) and not answer.replay:
        metrics.count("cordon_follow_events", answer.record["type"])
    else:
        kind = "replay" if isinstance(answer, Decided | Accepted) else type(answer).__name__.lower()
        metrics.count("cordon_answers_other", door, kind)


NAMES: Final = tuple(_LABELS)
