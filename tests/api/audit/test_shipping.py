"""The publisher on a real broker: every checkpoint in the topic exactly once, and enough to verify with."""

import functools
import json
import time

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from api.audit import logbook
from api.audit.anchors import read_anchors
from api.audit.inspection import inspect
from api.journal import Journal
from api.record import Kind, pack
from tests.api.processes import Processes, kill, metric, wait_for

pytestmark = pytest.mark.parts
NOW_MS = 1_800_000_000_000


@pytest.fixture
def names(kafka):
    return kafka.settings(partitions=1)


@pytest.fixture
def processes(tmp_path, names):
    made = Processes(
        tmp_path, "redis://127.0.0.1:1", names,
        CORDON_AUDIT__CHECKPOINT_RECORDS="20", CORDON_AUDIT__CHECKPOINT_MS="200",
    )  # fmt: skip
    yield made
    made.close()


def topic_lines(names):
    """Everything committed in the topic of checkpoints, as a dump of it would hold it."""
    consumer = Consumer({
        "bootstrap.servers": names.bootstrap, "group.id": "test", "enable.auto.commit": False,
        "isolation.level": "read_committed",
    })  # fmt: skip
    consumer.assign([TopicPartition(names.checkpoints, 0, OFFSET_BEGINNING)])
    lines = []
    while messages := consumer.consume(1_000, 2.0):
        lines += [message.value() for message in messages if not message.error()]
    consumer.close()
    return lines


def write(directory, first, count):
    with Journal(directory, segment_bytes=1 << 16) as journal:
        for number in range(first, first + count):
            journal.append([pack(Kind.DECISION, "k", json.dumps({"id": f"t{number}"}).encode())])


def covered(tmp_path, journal):
    found = read_anchors(tmp_path / "anchors").checkpoints
    return max((c[-1].size for name, c in found.items() if name.startswith(journal)), default=0)


def test_checkpoints_are_in_the_topic_exactly_once_through_kill_9(processes, names, tmp_path):
    journal = tmp_path / "journal" / "service-0"
    for round_ in range(3):
        write(journal, round_ * 100, 100)
        publisher = processes.start("api.publisher")
        wait_for(functools.partial(covers, tmp_path, "service-0", (round_ + 1) * 100), 30)
        kill(publisher)
    logbook.note(tmp_path / "journal", "test", {}, id="note-1", time_ms=NOW_MS, tenant="demo")
    processes.start("api.publisher")
    wait_for(lambda: covered(tmp_path, "audit") == 1, 30)
    wait_for(lambda: len(topic_lines(names)) >= 1 + sum(map(len, anchored(tmp_path).values())), 30)
    lines = topic_lines(names)
    assert len(set(lines)) == len(lines)
    assert [json.loads(line)["id"] for line in lines if json.loads(line)["type"] == "audit"] == ["note-1"]
    # The dump of the topic alone serves an outsider as well as the store does.
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "topic.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    places = sorted((tmp_path / "journal").iterdir())
    for anchors in (tmp_path / "dump", tmp_path / "anchors"):
        found = inspect(places, anchors, tmp_path / "keys", all_of=True)
        assert [(i.journal, i.findings, i.protected) for i in found] == [
            ("audit", (), 1),
            ("service-0", (), 300),
        ]


def covers(tmp_path, journal, size):
    return covered(tmp_path, journal) >= size


def anchored(tmp_path):
    return read_anchors(tmp_path / "anchors").checkpoints


def test_kafka_down_checkpoints_go_on_and_the_interval_is_measured(tmp_path, ports):
    port = ports.take()
    processes = Processes(
        tmp_path, "redis://127.0.0.1:1", CORDON_METRICS_PORT=str(port), CORDON_AUDIT__CHECKPOINT_MS="300"
    )
    try:
        write(tmp_path / "journal" / "service-0", 0, 30)
        processes.start("api.publisher", ready="")
        wait_for(lambda: covered(tmp_path, "service-0") == 30, 30)
        # A store that is gone: the interval grows, and says so.
        (tmp_path / "anchors").rename(tmp_path / "elsewhere")
        (tmp_path / "anchors").write_text("no directory")
        write(tmp_path / "journal" / "service-0", 30, 7)
        client = processes.client(port)
        name = "cordon_unprotected_seconds"
        wait_for(lambda: metric(client.get("/metrics").text, name, journal="service-0") > 0.8, 30)
        text = client.get("/metrics").text
        assert metric(text, "cordon_unprotected_records", journal="service-0") == 7
        (tmp_path / "anchors").unlink()
        (tmp_path / "elsewhere").rename(tmp_path / "anchors")
        wait_for(lambda: covered(tmp_path, "service-0") == 37, 30)
        until_s = time.monotonic() + 10
        while metric(client.get("/metrics").text, name, journal="service-0") and time.monotonic() < until_s:
            time.sleep(0.05)
        assert metric(client.get("/metrics").text, name, journal="service-0") == 0
    finally:
        processes.close()
