"""The projector: `python -m api.projector`. From the log's topics into the query store.

Committed records only; positions are stored with the records they cover. A decision of an id that has one
already is kept apart and reported, never hidden.
"""

import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from api.alerts import doubled as doubled_alert
from api.audit.logbook import append
from api.case import PREFIX as CASE_PREFIX
from api.compose import settle_garbage
from api.config import InvalidConfiguration, ServiceConfig, here
from api.engine import QueryStoreUnavailable
from api.journal import JournalBusy, JournalUnavailable
from api.metrics import Metrics
from api.past.mover import Mover
from api.query_store import Logged, QueryStore, open_store
from api.record import decode_json
from api.segment import Damage

BATCH: Final = 1_000
WAIT_S: Final = 0.2
# Nobody waits for the query store, a new decision is read from its journal: one commit in so many seconds.
GATHER_S: Final = 0.25
LOG = logging.getLogger("cordon.projector")


class Projector:
    """A consumer of decisions, labels, events and audit records, and the store behind it."""

    def __init__(
        self,
        config: ServiceConfig,
        open_query: Callable[[], QueryStore],
        metrics: Metrics,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._clock = clock
        self._config = config
        self._open = open_query
        self._metrics = metrics
        self._sleep = sleep
        self.projected = 0
        self.doubled = 0
        self.stopping = False

    def run(self) -> None:
        """Project until `stopping`. Raises `KafkaException`."""
        while not self.stopping:
            try:
                self._follow()
            except QueryStoreUnavailable as error:
                LOG.warning("the query store does not answer, trying again: %s", error)
                self._sleep(1.0)

    def _follow(self) -> None:
        query = self._open()
        consumer = Consumer(consumer_settings(self._config))
        try:
            self._assign(consumer, query)
            LOG.info("ready: projector")
            while not self.stopping:
                first = consumer.consume(1, WAIT_S)
                messages = [*first, *consumer.consume(BATCH, 0)] if first else []
                began_s = time.monotonic()
                self._project(query, messages)
                if messages:
                    self._sleep(pause_s(len(messages), time.monotonic() - began_s))
        finally:
            consumer.close()
            query.close()

    def _assign(self, consumer: Consumer, query: QueryStore) -> None:
        topics = self._config.topics
        known = consumer.list_topics(timeout=30).topics
        positions = query.positions()
        consumer.assign(
            [
                TopicPartition(topic, partition, positions.get((topic, partition), 0))
                for topic in (topics.decisions, topics.labels, topics.events, topics.checkpoints)
                for partition in (known[topic].partitions if topic in known else {})
            ]
        )

    def _project(self, query: QueryStore, messages: Sequence[Any]) -> None:
        records: list[Logged] = []
        positions: dict[tuple[str, int], int] = {}
        for message in messages:
            fault = message.error()
            if fault is not None:
                if fault.code() == KafkaError._PARTITION_EOF or fault.retriable():
                    continue
                raise KafkaException(fault)
            if message.topic() != self._config.topics.checkpoints or of_a_case(message.value()):
                records.append(
                    Logged(message.topic(), message.partition(), message.offset(), message.value())
                )
            positions[message.topic(), message.partition()] = message.offset() + 1
        if positions:
            doubled = query.project(records, positions)
            self.projected += len(records)
            self.doubled += len(doubled)
            for topic, count in Counter(logged.topic for logged in records).items():
                self._metrics.count("cordon_projected_records", topic, by=count)
            if doubled:
                self._metrics.count("cordon_doubled_decisions", by=len(doubled))
            for id_ in doubled:
                LOG.error("%s was decided twice; both decisions are kept", id_)
                self._alert(id_)

    def _alert(self, transaction_id: str) -> None:
        """Tell people; the publisher ships it. Where it cannot be written the metric and the log remain."""
        body = doubled_alert(transaction_id, self._clock()).body(self._config.tenant)
        try:
            append(self._config.journal_dir, [body])
        except (OSError, JournalBusy, JournalUnavailable, Damage) as error:
            LOG.error("no alert could be written: %s", error)


def pause_s(count: int, spent_s: float) -> float:
    """Seconds to gather after so many messages, which took `spent_s`."""
    if count > BATCH:
        # A backlog is worked off half of the time: its writes share the journals' disk.
        return min(spent_s, GATHER_S)
    return GATHER_S


def of_a_case(payload: bytes) -> bool:
    """Whether an audit record, or a checkpoint beside it, says what was done with a review case."""
    if b'"event":"case_' not in payload:
        return False
    found = decode_json(payload)
    return found.get("type") == "audit" and str(found.get("event")).startswith(CASE_PREFIX)


def consumer_settings(config: ServiceConfig) -> dict[str, Any]:
    """Settings of the projector's consumer; its positions are in the query store."""
    return {
        "bootstrap.servers": config.kafka,
        "group.id": f"{config.topics.group}-projector",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        # A fetch costs the broker about the same for one record as for many.
        "fetch.min.bytes": 1_000_000,
        "fetch.wait.max.ms": round(GATHER_S * 1_000),
        "queued.max.messages.kbytes": 32_768,
        "log_level": 3,
    }


def mover_of(config: ServiceConfig, metrics: Metrics) -> Mover | None:
    """What moves old decisions, where they are to be moved."""
    if config.hot_days is None:
        return None
    return Mover(config.query_store, config.warm_dir, config.hot_days, config.move_every_s, metrics, _now_ms)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> int:
    """Run until told to stop; the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        config = here()
    except (InvalidConfiguration, ValueError) as error:
        LOG.error("%s", error)
        return 2
    metrics = Metrics()
    metrics.serve(config.host, config.metrics_port)
    projector = Projector(
        config, lambda: open_store(config.query_store, config.warm_dir, migrating=True), metrics
    )

    def stop(*_: object) -> None:
        projector.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    # A commit makes thousands of rows, and nobody waits for it.
    settle_garbage(50_000)
    mover = mover_of(config, metrics)
    if mover is not None:
        mover.start()
    try:
        projector.run()
    finally:
        if mover is not None:
            mover.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
