"""The replay into a real broker, and lockstep against a real log and a real watermark."""

import threading
import time

import msgspec
import pytest
import redis
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from stream.replay.injection import Injection
from stream.replay.kafka_door import KafkaDoor, Undelivered
from stream.replay.lockstep import Lookahead
from stream.replay.pace import Pace
from stream.replay.passage import LoggedAndSeen, LogTopics, NotPassed, passed
from stream.replay.run import Replay, to_kafka
from tests.stream.histories import START_MS, parcels

WATERMARK = "{demo:meta}:watermark"

pytestmark = pytest.mark.parts


def everything(bootstrap, topic, partitions, count):
    """`count` messages of a topic as (partition, key, value, arrival)."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found: list[tuple] = []
    deadline = time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline:
        for message in consumer.consume(10_000, timeout=0.2):
            assert message.error() is None
            found.append((message.partition(), message.key(), message.value(), message.offset()))
    found += [(m.partition(), m.key(), m.value(), m.offset()) for m in consumer.consume(10, timeout=0.5)]
    consumer.close()
    return found


def test_every_message_is_in_the_topic_in_order_under_the_key_of_its_sender(kafka, tmp_path):
    topic = kafka.topic("in", partitions=3)
    plan = Replay(parcels(tmp_path, 600), Injection(0.05, 0.05, 0.05, 0.05, disorder_ms=9_000), quiet=True)
    manifest = to_kafka(plan, KafkaDoor(kafka.bootstrap, topic))
    found = everything(kafka.bootstrap, topic, 3, manifest.messages)
    assert len(found) == manifest.messages == manifest.answers["delivered"]
    partition_of: dict[bytes, int] = {}
    known: set[str] = set()
    for partition, key, value, _ in found:
        assert partition_of.setdefault(key, partition) == partition
        try:
            body = msgspec.json.decode(value)
        except msgspec.DecodeError:
            continue
        if not isinstance(body, dict) or not isinstance(body.get("transaction_id"), str):
            continue
        if "type" in body:
            assert body["type"] in ("label", "event")
            assert body["transaction_id"] in known, "an event follows its transaction in its partition"
        else:
            known.add(body["transaction_id"])


def test_fast_enough_that_it_never_limits_a_test(kafka, tmp_path):
    topic = kafka.topic("fast", partitions=4)
    history = parcels(tmp_path, 30_000)
    began = time.process_time()
    manifest = to_kafka(Replay(history, quiet=True), KafkaDoor(kafka.bootstrap, topic))
    assert manifest.messages > 45_000
    assert manifest.messages / (time.process_time() - began) > 15_000


def test_a_rate_is_kept(kafka, tmp_path):
    topic = kafka.topic("paced")
    manifest = to_kafka(
        Replay(parcels(tmp_path, 300), pace=Pace(rate=300), quiet=True), KafkaDoor(kafka.bootstrap, topic)
    )
    assert 0.99 <= manifest.seconds < 1.5 + manifest.behind_ms_max / 1000, (
        "never faster, slower only by what it owns up to"
    )


def test_a_topic_that_does_not_exist_is_an_error_that_says_so(kafka, tmp_path):
    with pytest.raises(Undelivered, match="nowhere"):
        to_kafka(Replay(parcels(tmp_path, 3), quiet=True), KafkaDoor(kafka.bootstrap, "nowhere", timeout_s=3))


class Pipeline(threading.Thread):
    """What lockstep waits for, made by hand: a door that logs each message in a transaction, and a Flink that
    is slow and only then moves the watermark. Notes what was in the log unseen when a message came in."""

    def __init__(self, settings, store):
        super().__init__(daemon=True)
        self.settings, self.store = settings, store
        self.stop = threading.Event()
        self.overlaps: list[str] = []
        self.seen: list[str] = []

    def run(self):
        kafka = self.settings
        source = Consumer(
            {"bootstrap.servers": kafka.bootstrap, "group.id": kafka.group, "auto.offset.reset": "earliest"}
        )
        source.subscribe([kafka.transactions])
        log = Producer(
            {"bootstrap.servers": kafka.bootstrap, "transactional.id": kafka.group, "linger.ms": 0}
        )
        log.init_transactions()
        positions: dict[tuple[str, int], int] = {}
        places: list[Message] = []

        def note(_: KafkaError | None, message: Message) -> None:
            places.append(message)

        while not self.stop.is_set():
            messages = [m for m in source.consume(500, timeout=0.05) if m.error() is None]
            if not messages:
                continue
            owners = [(m.key() or b"").decode() for m in messages]
            self.overlaps += [owner for owner in owners if owners.count(owner) > 1]
            places.clear()
            log.begin_transaction()
            for message in messages:
                body = msgspec.json.decode(message.value() or b"")
                kind = body.get("type", "transaction")
                topic = {"transaction": kafka.decisions, "label": kafka.labels, "event": kafka.events}[kind]
                name = body.get(f"{kind}_id")
                self.seen.append(name)
                record = msgspec.json.encode({"type": kind, "id": name, "v": 1})
                log.produce(topic, record, message.key(), on_delivery=note)
            log.commit_transaction()
            time.sleep(0.03)  # Flink takes its time
            for place in places:
                key = (place.topic() or "", place.partition() or 0)
                positions[key] = max(positions.get(key, 0), (place.offset() or 0) + 1)
            for (topic, partition), following in positions.items():
                self.store.hset(WATERMARK, f"{topic}:{partition}", f"run-1 {following} {START_MS} {START_MS}")
        source.close()


@pytest.fixture
def pipeline(kafka, valkey):
    settings = kafka.settings(partitions=2)
    with redis.Redis.from_url(valkey.url) as store:
        made = Pipeline(settings, store)
        made.start()
        yield made
        made.stop.set()
        made.join(20)


def passage_of(pipeline, timeout_s):
    kafka = pipeline.settings
    topics = LogTopics(kafka.decisions, kafka.labels, kafka.events)
    return LoggedAndSeen(kafka.bootstrap, topics, pipeline.store, WATERMARK, timeout_s)


def test_in_lockstep_no_entity_is_twice_under_way(pipeline, tmp_path):
    passage = passage_of(pipeline, 30.0)
    try:
        plan = Replay(
            parcels(tmp_path, 120), passage=passage, lookahead=Lookahead(span_ms=3_600_000), quiet=True
        )
        manifest = to_kafka(
            plan, KafkaDoor(pipeline.settings.bootstrap, pipeline.settings.transactions, linger_ms=0)
        )
    finally:
        passage.close()
    assert manifest.batches > 10
    assert pipeline.overlaps == []
    assert len(pipeline.seen) == len(set(pipeline.seen)) == manifest.sent.total()


def test_lockstep_says_what_is_missing_when_nothing_passes(pipeline, tmp_path):
    pipeline.stop.set()
    pipeline.join(20)
    passage = passage_of(pipeline, 0.5)
    try:
        with pytest.raises(NotPassed, match="records missing from the log, 0 in decisions"):
            to_kafka(
                Replay(parcels(tmp_path, 5), passage=passage, quiet=True),
                KafkaDoor(pipeline.settings.bootstrap, pipeline.settings.transactions),
            )
    finally:
        passage.close()


def test_the_watermark_is_past_what_lies_before_its_next_offset():
    watermark = {("decisions", 0): 12, ("labels", 3): 1}
    assert passed(watermark, {("decisions", 0): 11})
    assert not passed(watermark, {("decisions", 0): 12})
    assert not passed(watermark, {("events", 0): 0})
    assert passed(watermark, {})
