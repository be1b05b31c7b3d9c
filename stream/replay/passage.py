"""Waiting until messages have passed through Flink: they are in the log, and the watermark is past them."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

import msgspec
import redis
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from features.library import parse_watermark
from stream.replay.item import Item, Kind

Partition = tuple[str, int]

_PASSING = frozenset(
    {
        KafkaError._PARTITION_EOF,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
"""Errors of a broker that is starting or of a topic that was just made: asking again helps."""


class NotPassed(RuntimeError):
    """The messages did not pass within the time limit: the message says where they are stuck."""


class Passage(Protocol):
    """What lockstep waits on after each batch."""

    def wait(self, items: Iterable[Item]) -> None:
        """Returns once every item's record has been logged and Flink is past it. Raises `NotPassed`."""


@dataclass(frozen=True, slots=True)
class LogTopics:
    """The topics in which the records of each kind of message appear."""

    decisions: str = "decisions"
    labels: str = "labels"
    events: str = "events"

    def of(self, kind: Kind) -> str:
        """The topic of one kind."""
        return {"transaction": self.decisions, "label": self.labels, "event": self.events}[kind]


class _Record(msgspec.Struct):
    id: str


def passed(watermark: Mapping[Partition, int], positions: Mapping[Partition, int]) -> bool:
    """Whether the watermark (next offset per partition) is past every position (offset of a record)."""
    return all(watermark.get(partition, 0) > offset for partition, offset in positions.items())


@dataclass(slots=True)
class LoggedAndSeen:
    """The real passage: a read-committed consumer of the log, and the watermark in the store.

    Made before the first message is sent; it reads the log from its end.
    """

    bootstrap: str
    topics: LogTopics
    store: "redis.Redis"
    watermark_key: str
    timeout_s: float = 60.0
    clock: Callable[[], float] = time.monotonic
    _consumer: Consumer = field(init=False)
    _found: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        settings = {
            "bootstrap.servers": self.bootstrap,
            "group.id": "replay-lockstep",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 20,
            "log_level": 3,
        }
        self._consumer = Consumer(settings)
        known = (
            AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 3}).list_topics(timeout=10).topics
        )
        wanted = (self.topics.decisions, self.topics.labels, self.topics.events)
        missing = [topic for topic in wanted if topic not in known]
        if missing:
            self._consumer.close()
            raise NotPassed(f"the broker has no topic {', '.join(missing)}")
        ends = []
        for topic in wanted:
            for partition in known[topic].partitions:
                ends.append(TopicPartition(topic, partition, self._end(TopicPartition(topic, partition))))
        self._consumer.assign(ends)

    def _end(self, place: TopicPartition) -> int:
        """The next offset of a partition; a fresh topic's leader may not know yet that it is one."""
        deadline = self.clock() + 10.0
        while True:
            try:
                return self._consumer.get_watermark_offsets(place, timeout=10)[1]
            except KafkaException as error:
                if error.args[0].code() not in _PASSING or self.clock() > deadline:
                    self._consumer.close()
                    raise NotPassed(f"{place.topic}: {error.args[0].str()}") from error
                time.sleep(0.1)

    def wait(self, items: Iterable[Item]) -> None:
        """Blocks until all have passed. Raises `NotPassed`."""
        deadline = self.clock() + self.timeout_s
        wanted = {(self.topics.of(item.kind), item.id) for item in items}
        positions: dict[Partition, int] = {}
        while wanted:
            for key in [key for key in wanted if key in self._found]:
                partition, offset = self._found.pop(key)
                wanted.discard(key)
                place = (key[0], partition)
                positions[place] = max(positions.get(place, -1), offset)
            if wanted:
                if self.clock() > deadline:
                    topic, name = min(wanted)
                    raise NotPassed(
                        f"{len(wanted)} records missing from the log, {name} in {topic} among them"
                    )
                self._read()
        while not passed(self._watermark(), positions):
            if self.clock() > deadline:
                raise NotPassed(f"Flink's watermark {self._watermark()} did not pass {positions}")
            time.sleep(0.004)

    def close(self) -> None:
        """Leaves the log."""
        self._consumer.close()

    def _read(self) -> None:
        for message in self._consumer.consume(1_000, timeout=0.05):
            error = message.error()
            if error is not None:
                if error.code() in _PASSING:
                    continue
                raise NotPassed(f"{message.topic()}: {error}")
            name = msgspec.json.decode(message.value() or b"{}", type=_Record).id
            place = (message.partition() or 0, message.offset() or 0)
            self._found[message.topic() or "", name] = place

    def _watermark(self) -> dict[Partition, int]:
        """The next offset that Flink has still to read, per partition."""
        raw = cast("dict[bytes, bytes]", self.store.hgetall(self.watermark_key))
        return {place: following for place, (_, following, _, _) in parse_watermark(raw).items()}
