"""The dead letters, read back from their topic."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from api.config import Topics
from api.erasure import LettersUnavailable
from api.record import decode_json

ANSWER_S: Final = 5.0
BATCH: Final = 500


def read_letters(bootstrap: str, topics: Topics) -> Iterator[dict[str, Any]]:
    """Every letter that is there now, oldest first. Raises `LettersUnavailable`."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"{topics.group}-letters",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    try:
        yield from _all(consumer, topics.dead_letters)
    except KafkaException as error:
        raise LettersUnavailable(f"{bootstrap}: {error}") from error
    finally:
        consumer.close()


def _all(consumer: Consumer, topic: str) -> Iterator[dict[str, Any]]:
    known = consumer.list_topics(topic, timeout=ANSWER_S).topics[topic]
    if known.error is not None:
        raise KafkaException(known.error)
    for partition in known.partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_S)
        if high > low:
            consumer.assign([TopicPartition(topic, partition, low)])
            yield from _partition(consumer, high)


def _partition(consumer: Consumer, end: int) -> Iterator[dict[str, Any]]:
    """Messages of the assigned partition before offset `end`."""
    at = 0
    while at < end:
        first = consumer.consume(1, ANSWER_S)
        if not first:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "the dead letters were not delivered"))
        for message in [*first, *consumer.consume(BATCH, 0)]:
            fault = message.error()
            if fault is not None:
                raise KafkaException(fault)
            at = (message.offset() or 0) + 1
            if at > end:
                return
            try:
                letter = decode_json(message.value() or b"null")
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if isinstance(letter, dict):
                yield letter
