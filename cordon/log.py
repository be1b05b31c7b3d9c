"""The log, read back: every committed record of the topics of decisions, labels and lifecycle events."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from cordon.settings import Kafka

BATCH = 5_000
Record = dict[str, Any]


class LogIncomplete(Exception):
    """What was expected did not reach the log in time; the message says how much is missing and where."""


class LogReader:
    """Follows the three topics from their beginning. `keep` gets each record as it is read.

    `seen`: committed records per topic. `reached`: next offset per `(topic, partition)`.
    """

    def __init__(self, kafka: Kafka, keep: Callable[[str, Record], None]) -> None:
        self.topics = (kafka.decisions, kafka.labels, kafka.events)
        self.seen: Counter[str] = Counter()
        self.reached: dict[tuple[str, int], int] = {}
        self._keep = keep
        self._decode = msgspec.json.Decoder().decode
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap,
                "group.id": f"{kafka.group}-reader",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                # As the projector: a fetch costs the broker about the same for one record as for many.
                "fetch.min.bytes": 1_000_000,
                "fetch.wait.max.ms": 200,
                "log_level": 3,
            }
        )
        known = self._consumer.list_topics(timeout=10).topics
        parts = [TopicPartition(t, p, OFFSET_BEGINNING) for t in self.topics for p in known[t].partitions]
        self._consumer.assign(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def poll(self, timeout_s: float = 0.1) -> int:
        """Reads what is there, at most one batch; returns the number of records."""
        messages = self._consumer.consume(BATCH, timeout=timeout_s)
        for message in messages:
            fault = message.error()
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            if fault is not None or topic is None or partition is None or offset is None:
                raise KafkaException(fault)
            self.seen[topic] += 1
            self.reached[topic, partition] = offset + 1
            self._keep(topic, self._decode(message.value() or b"null"))
        return len(messages)

    def until(self, wanted: Mapping[str, int], *, patience_s: float) -> None:
        """Reads until each topic gave at least so many records. Raises `LogIncomplete` after `patience_s`
        without any."""
        heard_s = time.monotonic()
        while missing := {t: n - self.seen[t] for t, n in wanted.items() if self.seen[t] < n}:
            if self.poll():
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > patience_s:
                raise LogIncomplete(f"nothing for {patience_s:.0f} s; missing from the log: {missing}")
