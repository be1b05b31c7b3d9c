"""The reader on a real log: who subscribes is told what comes then; while nobody does, nothing is read."""

import json
import threading
import time
from contextlib import contextmanager

import pytest
from confluent_kafka import Producer

from api.config import ServiceConfig, Topics
from api.webhooks.box import Box, Subscription
from api.webhooks.reader import NOTE_EVERY_MS, Reader
from api.webhooks.signature import Key
from tests.api.processes import wait_for

pytestmark = pytest.mark.parts


class Log:
    """The topic of decisions, written to as the publisher does."""

    def __init__(self, kafka, name):
        self.topics = kafka.settings(partitions=2)
        self.config = ServiceConfig(
            secret="s" * 32,
            kafka=kafka.bootstrap,
            topics=Topics(
                decisions=self.topics.decisions,
                alerts=self.topics.alerts,
                checkpoints=self.topics.checkpoints,
                group=self.topics.group,
            ),
        )
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": name})
        self._producer.init_transactions(30)

    def write(self, *ids):
        self._producer.begin_transaction()
        for id_ in ids:
            record = {
                "type": "decision", "id": id_, "decided_ms": 5, "tenant": "demo", "outcome": "decline",
                "score": 900, "reasons": [], "degraded": [], "guard": None, "versions": {"model": "m"},
            }  # fmt: skip
            self._producer.produce(self.topics.decisions, json.dumps(record), id_)
        self._producer.commit_transaction(30)

    def write_raw(self, value, count):
        self._producer.begin_transaction()
        for number in range(count):
            self._producer.produce(self.topics.decisions, value, str(number))
        self._producer.commit_transaction(30)


@contextmanager
def reading(log, path, clock=lambda: time.time_ns() // 1_000_000):
    reader = Reader(log.config, Box(path), clock, time.sleep)
    thread = threading.Thread(target=reader.run)
    thread.start()
    try:
        yield reader
    finally:
        reader.stopping = True
        thread.join(30)
    assert reader.failure is None


def told(box, id_):
    return [json.loads(d.body)["data"]["transaction_id"] for d in box.due(id_, 2**60, 1_000, ())]


def subscribe(box, id_="a"):
    box.put(Subscription(id_, "http://x/", ("decision.*",), (Key("k", "s"),), 0, "test"))


def placed(box, log):
    """Records and markers of the log's decisions that the stored positions have passed."""
    return sum(at for (topic, _), at in box.positions().items() if topic == log.topics.decisions)


def test_who_subscribes_is_told_all_that_is_logged_from_then_on(kafka, tmp_path):
    log, path = Log(kafka, "told"), tmp_path / "box"
    box = Box(path)
    with reading(log, path):
        wait_for(lambda: len(box.positions()) > 3)
        log.write("before-1", "before-2")
        time.sleep(NOTE_EVERY_MS / 1_000 + 1.5)
        for life in range(4):
            # At once: whatever the reader does in that moment.
            subscribe(box)
            wanted = [f"{life}-{number}" for number in range(5)]
            log.write(*wanted)
            wait_for(lambda: set(wanted) <= set(told(box, "a")))  # noqa: B023
            assert not {"before-1", "before-2"} & set(told(box, "a"))
            box.delete("a")
            log.write(f"between-{life}")
            time.sleep(0.3 * life)


def test_what_was_logged_between_two_lives_is_told(kafka, tmp_path):
    log, path = Log(kafka, "lives"), tmp_path / "box"
    box = Box(path)
    with reading(log, path):
        wait_for(lambda: len(box.positions()) > 3)
    subscribe(box)
    log.write("down-1", "down-2")
    with reading(log, path):
        wait_for(lambda: {"down-1", "down-2"} <= set(told(box, "a")))
        log.write("up")
        wait_for(lambda: len(told(box, "a")) == 3)


def test_without_subscriptions_positions_follow_the_log_and_nothing_is_read(kafka, tmp_path):
    log, path = Log(kafka, "idle"), tmp_path / "box"
    box, ticks = Box(path), iter(range(0, 2**40, NOTE_EVERY_MS))
    with reading(log, path, lambda: next(ticks)):
        wait_for(lambda: len(box.positions()) > 3)
        at = placed(box, log)
        # Whoever read this would stop.
        log.write_raw(b"no record", 50)
        wait_for(lambda: placed(box, log) >= at + 50)
