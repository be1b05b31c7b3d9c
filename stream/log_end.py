"""Where the log ends: partitions, end offsets, and whether committed records lie between two offsets.

The connector's own Kafka client is used, through the Java gateway that PyFlink runs anyway. A transaction's
marker takes an offset too, so that the end of a partition lies beyond its last record: only reading tells
whether anything is left before it.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from py4j.protocol import Py4JError
from pyflink.java_gateway import get_gateway
from pyflink.util.java_utils import add_jars_to_context_class_loader

from stream.life import Positions

_SHADED: Final = "org.apache.flink.kafka.shaded.org.apache.kafka"
_POLL_MS: Final = 1_000


class LogAway(Exception):
    """Kafka does not answer, or a topic does not exist yet: ask again later."""


class LogEnd:
    """Reads ends of topics. Not for several threads. Calls block for some seconds; all raise `LogAway`."""

    def __init__(self, bootstrap: str, jars: Sequence[str]) -> None:
        self._bootstrap = bootstrap
        self._jars = list(jars)
        self._made: Any = None

    def ends(self, topics: Sequence[str]) -> Positions:
        """End offset of every partition of the topics, open transactions left out."""
        at = [p for topic in topics for p in self._partitions(topic)]
        try:
            found = self._consumer().endOffsets(self._list(at))
            return {(p.topic(), p.partition()): int(found[p]) for p in at}
        except Py4JError as error:
            raise LogAway(str(error)) from error

    def is_reached(self, ends: Positions, reached: Positions) -> bool:
        """Whether no committed record lies between `reached` (missing: the beginning) and `ends`."""
        return all(self._nothing_between(at, reached.get(at, 0), end) for at, end in ends.items())

    def _nothing_between(self, at: tuple[str, int], first: int, end: int) -> bool:
        if first >= end:
            return True
        try:
            consumer, partition = self._consumer(), self._partition(*at)
            consumer.assign(self._list([partition]))
            consumer.seek(partition, first)
            for _ in range(10):
                records = consumer.poll(get_gateway().jvm.java.time.Duration.ofMillis(_POLL_MS))
                if not records.isEmpty():
                    return bool(records.iterator().next().offset() >= end)
                if consumer.position(partition) >= end:
                    return True
            return False
        except Py4JError as error:
            raise LogAway(str(error)) from error

    def _partitions(self, topic: str) -> list[Any]:
        try:
            infos = self._consumer().partitionsFor(topic)
            found = [self._partition(topic, info.partition()) for info in infos or ()]
        except Py4JError as error:
            raise LogAway(str(error)) from error
        if not found:
            raise LogAway(f"topic {topic} does not exist")
        return found

    def _partition(self, topic: str, number: int) -> Any:
        return self._java("common.TopicPartition")(topic, number)

    def _list(self, items: Sequence[Any]) -> Any:
        made = get_gateway().jvm.java.util.ArrayList()
        for item in items:
            made.add(item)
        return made

    def _consumer(self) -> Any:
        if self._made is None:
            add_jars_to_context_class_loader(self._jars)
            properties = get_gateway().jvm.java.util.Properties()
            deserializer = f"{_SHADED}.common.serialization.ByteArrayDeserializer"
            for name, value in {
                "bootstrap.servers": self._bootstrap,
                "isolation.level": "read_committed",
                "enable.auto.commit": "false",
                "fetch.max.bytes": "65536",
                "max.poll.records": "1",
                "default.api.timeout.ms": "10000",
                "key.deserializer": deserializer,
                "value.deserializer": deserializer,
            }.items():
                properties.setProperty(name, value)
            self._made = self._java("clients.consumer.KafkaConsumer")(properties)
        return self._made

    def _java(self, name: str) -> Any:
        found: Any = get_gateway().jvm
        for part in f"{_SHADED}.{name}".split("."):
            found = getattr(found, part)
        return found

    def close(self) -> None:
        """Release the client."""
        if self._made is not None:
            with suppress(Py4JError):  # the gateway may have been stopped with us
                self._made.close()
            self._made = None
