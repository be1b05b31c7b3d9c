"""The publisher: `python -m api.publisher`. Ships every journal to Kafka, each record exactly once, and
makes the signed checkpoints.

One transaction holds a piece of every journal and the positions behind it (topic of positions, compacted,
key = journal). Whoever starts fences the one before, and begins where the committed positions say.

Exit status 4: another publisher took over.
"""

import logging
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from api.alerts import KEY, damaged, derived
from api.audit.anchors import FileAnchors
from api.audit.checkpoint import Checkpoint
from api.audit.keys import KeyDirectory
from api.audit.notary import Interval, Notary
from api.checkpoints import Checkpoints
from api.config import InvalidConfiguration, ServiceConfig, Topics, here
from api.journal import Journal, JournalBusy, JournalUnavailable, Mark
from api.journal_reader import JournalReader, Position
from api.metrics import Metrics
from api.record import Kind, decode_json, encode_json, unpack
from api.segment import BATCH_HEADER, Damage, Record, journal_name, name_of, read_batch_header

RECORDS_MAX: Final = 2_000
CHECKPOINTS_MAX: Final = 100
IDLE_S: Final = 0.003
# A transaction costs the broker the same for one record as for a thousand: one begins every so many seconds.
GATHER_S: Final = 0.04
LOOK_EVERY_S: Final = 0.5
TRANSACTION_TIMEOUT_MS: Final = 15_000
EXIT_FENCED: Final = 4
ANNOUNCE_S: Final = 5
LOG = logging.getLogger("cordon.publisher")


class Fenced(Exception):
    """Another publisher took over: stop."""


class ShippingFailed(Exception):
    """The transaction was not committed, or nobody knows: begin again from the committed positions."""


def topic_of(kind: Kind, topics: Topics) -> str:
    """Where records of a kind go."""
    routes = {
        Kind.LABEL: topics.labels,
        Kind.EVENT: topics.events,
        Kind.AUDIT: topics.checkpoints,
        Kind.ALERT: topics.alerts,
    }
    return routes.get(kind, topics.decisions)


def journal_id(directory: Path) -> str | None:
    """Name of the journal in the topic of positions: its directory and its first record's hash."""
    reader = JournalReader(directory)
    try:
        first = reader.read(1)
    finally:
        reader.close()
    return journal_name(directory, first[0].hash) if first else None


class Publisher:
    """Readers of all journals below a directory and one transactional producer."""

    def __init__(
        self,
        config: ServiceConfig,
        metrics: Metrics,
        checkpoints: Checkpoints,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config = config
        self._checkpoints = checkpoints
        self._metrics = metrics
        self._sleep = sleep
        self._readers: dict[str, JournalReader] = {}
        self._positions: dict[str, Shipped] = {}
        self._anchored: dict[str, int] = {}
        self._producer: Producer | None = None
        self._looked_s = 0.0
        self._delivery: KafkaError | None = None
        self.shipped = 0
        self.stopping = False

    def run(self) -> None:
        """Ship until `stopping`. Raises `Fenced`, `Damage`."""
        wait_s = 0.1
        while not self.stopping:
            try:
                self._begin()
                LOG.info("ready: publisher, %d journals", len(self._readers))
                wait_s = 0.1
                while not self.stopping:
                    began_s = time.monotonic()
                    shipped = self.step()
                    if shipped < RECORDS_MAX:
                        rest_s = began_s + GATHER_S - time.monotonic()
                        self._sleep(max(rest_s, IDLE_S) if shipped else IDLE_S)
            except ShippingFailed as error:
                LOG.warning("shipping failed, beginning again: %s", error)
                self._end()
                self._sleep(wait_s)
                wait_s = min(wait_s * 2, 5.0)
        self._end()

    def step(self) -> int:
        """Ship what is there, at most a transaction's worth; how many records."""
        self._look()
        found: dict[str, list[Record]] = {}
        left = RECORDS_MAX
        for name, reader in self._readers.items():
            records = reader.read(left) if left > 0 else []
            if records:
                found[name] = records
                left -= len(records)
        made = {
            name: new[:CHECKPOINTS_MAX]
            for name in self._readers
            if (new := self._checkpoints.behind(name, self._anchored[name]))
        }
        if found or made:
            self._ship(found, made)
            self._anchored |= {name: new[-1].number for name, new in made.items()}
            for name in found:
                reader = self._readers[name]
                reader.ship()
                self._metrics.set("cordon_journal_backlog_records", reader.backlog, reader.directory.name)
        count = sum(map(len, found.values()))
        self.shipped += count
        if count:
            self._metrics.count("cordon_published_records", by=count)
        return count

    def _ship(self, found: Mapping[str, list[Record]], made: Mapping[str, list[Checkpoint]]) -> None:
        producer, topics = self._producer, self._config.topics
        if producer is None:
            raise ShippingFailed("not connected")
        try:
            producer.begin_transaction()
            for records in found.values():
                for record in records:
                    envelope = unpack(record.body)
                    self._produce(topic_of(envelope.kind, topics), envelope.payload, envelope.key)
                    alert = derived(envelope, self._config.review_amount_min)
                    if alert is not None:
                        line = encode_json(alert.to_json(self._config.tenant))
                        self._produce(topics.alerts, line, KEY.encode())
            for name, checkpoints in made.items():
                for checkpoint in checkpoints:
                    self._produce(topics.checkpoints, checkpoint.line(), name.encode())
            for name in {**found, **made}:
                anchored = made[name][-1].number if name in made else self._anchored[name]
                shipped = Shipped(self._readers[name].position, anchored)
                self._produce(topics.positions, _encode(shipped), name.encode())
            self._commit(producer)
        except KafkaException as error:
            raise self._failure(error) from error
        if self._delivery is not None:
            raise ShippingFailed(str(self._delivery))

    def _produce(self, topic: str, value: bytes, key: bytes) -> None:
        producer = self._producer
        if producer is None:
            raise ShippingFailed("not connected")
        while True:
            try:
                producer.produce(topic, value, key, on_delivery=self._note)
            except BufferError:
                producer.poll(0.05)
            else:
                return

    def _note(self, error: KafkaError | None, _: Any) -> None:
        self._delivery = self._delivery or error

    def _commit(self, producer: Producer) -> None:
        while True:
            try:
                producer.commit_transaction(10)
            except KafkaException as error:
                fault = error.args[0]
                if not fault.retriable() or self.stopping:
                    raise
            else:
                return

    def _failure(self, error: KafkaException) -> Exception:
        fault = error.args[0]
        if fault.code() in (
            KafkaError._FENCED,
            KafkaError.PRODUCER_FENCED,
            KafkaError.INVALID_PRODUCER_EPOCH,
        ):
            return Fenced(str(fault))
        return ShippingFailed(str(fault))

    def _begin(self) -> None:
        """A fresh producer, fencing any other, and readers where the committed positions say."""
        self._delivery = None
        producer = Producer(
            {
                "bootstrap.servers": self._config.kafka,
                "transactional.id": f"{self._config.topics.group}-publisher",
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                # The commit sends what is there; nothing goes before it but full batches.
                "linger.ms": 200,
                "compression.type": "lz4",
                "log_level": 3,
            }
        )
        try:
            producer.init_transactions(30)
            positions = committed_positions(self._config)
        except KafkaException as error:
            raise self._failure(error) from error
        self._producer = producer
        self._positions = positions
        self._looked_s = 0.0
        self._look()

    def _look(self) -> None:
        """Find journals that are new, and tails that dead workers left behind."""
        now_s = time.monotonic()
        if self._looked_s and now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        parent = Path(self._config.journal_dir)
        known = {reader.directory for reader in self._readers.values()}
        for directory in sorted(parent.glob("*/mark")) if parent.is_dir() else []:
            adopt(directory.parent)
            if directory.parent in known:
                continue
            name = journal_id(directory.parent)
            if name is not None:
                shipped = self._positions.get(name, Shipped())
                reader = JournalReader(directory.parent, shipped.position)
                reader.ship()
                self._anchored[name] = shipped.checkpoint
                self._readers[name] = reader

    def _end(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        self._anchored.clear()
        self._producer = None


def adopt(directory: Path) -> None:
    """Make a dead writer's last batch readable: it was durable, but its writer died before saying so."""
    mark = Mark(directory)
    segment, offset = mark.durable
    mark.close()
    path = directory / name_of(segment)
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        if read_batch_header(file.read(BATCH_HEADER.size), offset) is None:
            return
    try:
        Journal(directory).close()
    except (JournalBusy, JournalUnavailable):
        return


@dataclass(frozen=True, slots=True)
class Shipped:
    """How much of a journal is in Kafka: its records before `position`, its checkpoints up to a number."""

    position: Position = field(default_factory=Position)
    checkpoint: int = -1


def committed_positions(config: ServiceConfig) -> dict[str, Shipped]:
    """The newest committed position of every journal. Raises `KafkaException`."""
    consumer = Consumer(
        {
            "bootstrap.servers": config.kafka,
            "group.id": f"{config.topics.group}-publisher",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 3,
        }
    )
    found: dict[str, Shipped] = {}
    try:
        consumer.assign([TopicPartition(config.topics.positions, 0, 0)])
        until = time.monotonic() + 30
        while time.monotonic() < until:
            message = consumer.poll(1.0)
            if message is None:
                continue
            fault = message.error()
            if fault is not None:
                if fault.code() == KafkaError._PARTITION_EOF:
                    return found
                raise KafkaException(fault)
            value = decode_json(message.value() or b"{}")
            name = (message.key() or b"").decode()
            position = Position(
                value["segment"], value["offset"], value["sequence"], bytes.fromhex(value["hash"])
            )
            found[name] = Shipped(position, value.get("checkpoint", -1))
    finally:
        consumer.close()
    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "the positions could not be read"))


def announce(config: ServiceConfig, detail: str) -> None:
    """An alert of a damaged journal, which can be shipped no more; as often as the publisher meets it, under
    one id."""
    producer = Producer({"bootstrap.servers": config.kafka, "enable.idempotence": True, "log_level": 3})
    line = encode_json(damaged(detail, _now_ms()).to_json(config.tenant))
    producer.produce(config.topics.alerts, line, KEY)
    if producer.flush(ANNOUNCE_S):
        LOG.error("nobody could be told: Kafka does not answer")


def _encode(shipped: Shipped) -> bytes:
    position = shipped.position
    return encode_json(
        {
            "segment": position.segment,
            "offset": position.offset,
            "sequence": position.sequence,
            "hash": position.hash.hex(),
            "checkpoint": shipped.checkpoint,
        }
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> int:
    """Run until told to stop; the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        config = here()
    except InvalidConfiguration as error:
        LOG.error("%s", error)
        return 2
    metrics = Metrics()
    metrics.serve(config.host, config.metrics_port)
    notary = Notary(
        FileAnchors(config.anchors_dir),
        KeyDirectory(config.keys_dir),
        Interval(config.checkpoint_records, config.checkpoint_ms),
    )
    checkpoints = Checkpoints(config.journal_dir, notary, metrics, _now_ms, journal_id)
    checkpoints.start()
    publisher = Publisher(config, metrics, checkpoints)

    def stop(*_: object) -> None:
        publisher.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        publisher.run()
    except Fenced as error:
        LOG.error("stopped: another publisher took over: %s", error)
        return EXIT_FENCED
    except Damage as error:
        LOG.error("stopped: the journal is damaged: %s", error)
        announce(config, str(error))
        return 1
    finally:
        checkpoints.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
