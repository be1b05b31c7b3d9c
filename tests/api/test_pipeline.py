"""Kafka in, journal, Kafka out, query store: the processes on a real broker and a real Valkey."""

import functools
import json
import signal
import time
from collections import Counter
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from api import door as door_module
from api.compose import compose
from api.config import ServiceConfig
from api.door import Door, now_ms
from api.letter import holder_of, opened, place_of
from api.metrics import Metrics
from api.query_store import open_store
from api.vault.directory import Vault
from api.vault.seal import Sealer
from tests.api.processes import Processes, body, kill, wait_for

pytestmark = pytest.mark.parts


class Installation:
    """Topics of its own, processes, and what came out."""

    def __init__(self, directory, valkey, kafka, **more):
        self.names = kafka.settings(partitions=2)
        self.processes = Processes(directory, valkey.url, self.names, **more)
        self.directory = directory
        self.producer = Producer({"bootstrap.servers": self.names.bootstrap, "linger.ms": 1})

    def send(self, *messages, partition=0):
        for message in messages:
            raw = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.producer.produce(self.names.transactions, raw, partition=partition)
        assert self.producer.flush(20) == 0

    def read(self, topic, expected, seconds=60):
        """Committed messages of a topic, once there are `expected`."""
        consumer = Consumer({
            "bootstrap.servers": self.names.bootstrap, "group.id": "test", "enable.auto.commit": False,
            "isolation.level": "read_committed", "fetch.wait.max.ms": 20,
        })  # fmt: skip
        known = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in known])
        found: list[dict[str, Any]] = []

        def enough():
            found.extend(json.loads(m.value() or b"") for m in consumer.consume(5_000, 0.2) if not m.error())
            return len(found) >= expected

        wait_for(enough, seconds)
        found.extend(json.loads(m.value() or b"") for m in consumer.consume(5_000, 0.5) if not m.error())
        consumer.close()
        return found

    def stored(self, expected, seconds=60):
        store = open_store(f"sqlite:///{self.directory / 'query.sqlite'}")
        wait_for(lambda: sum(store.counts().values()) >= expected, seconds)
        counts = store.counts()
        store.close()
        return counts


@pytest.fixture
def installation(tmp_path, valkey, kafka):
    made = Installation(tmp_path, valkey, kafka)
    yield made
    made.processes.close()


def inside(installation, letter):
    """The bytes of a dead letter, with the keys of the installation."""
    vault = Vault(installation.directory / "vault", lambda size: pytest.fail("there are keys"))
    place = place_of(letter)
    sealer = Sealer(vault.read(), "demo", lambda: b"")
    return opened(sealer.open(holder_of(letter["subject"], place), place.id, letter["sealed"])).original


def event(id, of, kind="issuer_approved", number=0):
    return {"type": "event", "event_id": id, "transaction_id": of, "kind": kind,
            "time": 1_760_000_000_500 + number * 1_000}  # fmt: skip


def label(id, of, number=0):
    return {"type": "label", "label_id": id, "transaction_id": of, "fraud": True,
            "time": 1_760_000_000_900 + number * 1_000}  # fmt: skip


def test_everything_valid_arrives_exactly_once_and_everything_bad_is_a_dead_letter(installation, ports):
    start = installation.processes.start
    start("api.publisher")
    start("api.projector")
    start("api.door")
    good = [m for i in range(300) for m in (body(f"t{i}", i), event(f"e{i}", f"t{i}", number=i))]
    bad = [
        b"{", b"\xff", b"[]", body("x", amount=-5), body("x", card="4111111111111111"), {"type": "colour"},
        body("t1", 1, amount=7), event("e-none", "nobody"), body("x", time=5),
    ]  # fmt: skip
    installation.send(
        *good[:300], *bad, *good[300:], *good[:50], label("l1", "t5", 300), label("l1", "t5", 300)
    )
    names = installation.names
    assert Counter(r["id"] for r in installation.read(names.decisions, 300)) == {
        f"t{i}": 1 for i in range(300)
    }
    assert len(installation.read(names.events, 300)) == 300
    assert [r["id"] for r in installation.read(names.labels, 1)] == ["l1"]
    letters = installation.read(names.dead_letters, len(bad))
    assert [letter["code"] for letter in letters] == [
        "malformed", "malformed", "malformed", "range", "card_number", "unknown_value", "conflict",
        "unknown_transaction", "late",
    ]  # fmt: skip
    assert inside(installation, letters[0]) == b"{"
    assert b'"card": "****************"' in inside(installation, letters[4])
    unnamed = [letter["code"] for letter in letters if letter["subject"] is None]
    assert unnamed == ["malformed", "malformed", "malformed", "unknown_value", "unknown_transaction"]
    assert letters[0]["source"] == {"topic": names.transactions, "partition": 0, "offset": 300}
    assert installation.stored(601) == {"decision": 300, "label": 1, "lifecycle": 300, "doubled": 0}
    _, client = installation.processes.service(ports.take())
    assert client.get("/v1/decisions/t7").json()["id"] == "t7"
    # The claim holds a receipt: the same again is still answered with the same outcome.
    again = client.post("/v1/decisions", json=body("t7", 7)).json()
    assert again["replay"]
    assert len(client.get("/v1/decisions", params={"limit": 20}).json()["decisions"]) == 20
    mine = client.get("/v1/decisions", params={"entity": "card", "id": "cd_3", "limit": 200}).json()
    assert {r["id"] for r in mine["decisions"]} == {f"t{i}" for i in range(3, 300, 7)}


def holds(store, decisions):
    return store.counts()["decision"] >= decisions


def test_kill_9_of_door_publisher_and_projector_loses_and_doubles_nothing(installation):
    start = installation.processes.start
    total = 3_000
    installation.send(*[body(f"t{i}", i) for i in range(total)])
    for round_ in range(3):
        running = [start(m) for m in ("api.publisher", "api.projector", "api.door")]
        store = open_store(f"sqlite:///{installation.directory / 'query.sqlite'}")
        wait_for(functools.partial(holds, store, 300 * (round_ + 1)), 60)
        store.close()
        for process in running:
            kill(process)
    for module in ("api.publisher", "api.projector", "api.door"):
        start(module)
    found = Counter(r["id"] for r in installation.read(installation.names.decisions, total))
    assert found == {f"t{i}": 1 for i in range(total)}
    assert installation.stored(total) == {"decision": total, "label": 0, "lifecycle": 0, "doubled": 0}


def test_too_many_bad_messages_in_a_row_stop_the_door(tmp_path, valkey, kafka):
    made = Installation(tmp_path, valkey, kafka, CORDON_SERVICE__DEAD_LETTERS_MAX="5")
    try:
        door = made.processes.start("api.door")
        made.send(*[b"rubbish"] * 4, body("a"), *[b"rubbish"] * 5, body("b", 1))
        assert len(made.read(made.names.dead_letters, 9)) == 9
        made.send(*[b"rubbish"] * 20)
        assert door.wait(30) == 3
        assert "more than 5 bad messages in a row" in made.processes.log.read_text()
        assert len(made.read(made.names.dead_letters, 14)) == 14
    finally:
        made.processes.close()


def test_a_second_publisher_fences_the_first(installation):
    first = installation.processes.start("api.publisher")
    second = installation.processes.start("api.publisher")
    door = installation.processes.start("api.door")
    installation.send(*[body(f"t{i}", i) for i in range(20)])
    assert len(installation.read(installation.names.decisions, 20)) == 20
    assert first.wait(30) == 4
    for process in (second, door):
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_decisions_go_on_without_kafka_and_are_read_back(tmp_path, valkey, ports):
    processes = Processes(tmp_path, valkey.url)
    try:
        _, client = processes.service(ports.take())
        assert client.post("/v1/decisions", json=body("a")).status_code == 200
        assert client.get("/v1/decisions/a").json()["id"] == "a"
    finally:
        processes.close()


def test_partitions_end_with_their_last_record_not_with_an_empty_fetch(installation, monkeypatch):
    settings = door_module.consumer_settings
    # The broker's word for an end comes with a fetch that found nothing; here it never comes.
    monkeypatch.setattr(
        door_module, "consumer_settings", lambda config: settings(config) | {"enable.partition.eof": False}
    )
    for partition in (0, 1):
        installation.send(body(f"t{partition}", partition), partition=partition)
    config = ServiceConfig.from_environment(installation.processes.environment)
    parts = compose(config, "door-0", time.perf_counter_ns, now_ms)
    door = Door(parts, now_ms, Metrics())
    try:
        topic = config.topics.transactions
        door._consumer.subscribe([topic], on_assign=door._assigned, on_revoke=door._revoked)

        def both_read():
            door._read(0.2)
            return len(door._aligner) == 2

        wait_for(both_read, 30)
        assert [taken.place.partition for taken in door._take()] == [0, 1]
    finally:
        door._consumer.close()
        parts.close()
