"""The topics of an installation, as values, and the task that creates those that are missing.

`python -m cordon.stack.topics` is the part `topics` of the stack: it ends once all exist.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic

from cordon.settings import InvalidSettings, Kafka, Settings

ANSWER_S = 30.0


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. `options` are its own, beside the broker's defaults."""

    name: str
    partitions: int
    options: Mapping[str, str] = field(default_factory=dict)


def topics(kafka: Kafka) -> tuple[Topic, ...]:
    """Every topic of an installation. The log of decisions keeps everything: all else is rebuilt from it.

    What producers wrote is in plain text: it is kept until the door has it in the log, in files that are
    short-lived, so that what the door deletes is soon gone from the disk (docs/erasure.md).
    """
    kept = {"retention.ms": "-1", "retention.bytes": "-1"}
    incoming = {
        "retention.ms": str(kafka.transactions_retention_ms),
        "segment.ms": str(kafka.transactions_segment_ms),
        "segment.bytes": str(64 * 2**20),
        "file.delete.delay.ms": "1000",
        # Whatever time producers write: what counts is how long it has been here.
        "message.timestamp.type": "LogAppendTime",
    }
    letters = {
        "retention.ms": str(kafka.dead_letters_retention_ms),
        "message.timestamp.type": "LogAppendTime",
    }
    return (
        Topic(kafka.transactions, kafka.partitions, incoming),
        Topic(kafka.decisions, kafka.partitions, kept),
        Topic(kafka.labels, kafka.partitions, kept),
        Topic(kafka.events, kafka.partitions, kept),
        Topic(kafka.checkpoints, 1, kept),
        Topic(kafka.dead_letters, 1, letters),
        Topic(kafka.alerts, 1),
        Topic(kafka.positions, 1, {"cleanup.policy": "compact"}),
    )


def create_topics(bootstrap: str, wanted: Sequence[Topic], *, replication: int = 1) -> tuple[str, ...]:
    """Creates the topics that do not exist; returns their names. Raises `KafkaException`."""
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    new = [
        NewTopic(
            topic.name,
            num_partitions=topic.partitions,
            replication_factor=replication,
            config=dict(topic.options),
        )
        for topic in wanted
    ]
    created = []
    for name, future in client.create_topics(new, operation_timeout=ANSWER_S).items():
        try:
            future.result(timeout=ANSWER_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        else:
            created.append(name)
    await_leaders(client, [topic for topic in wanted if topic.name in created])
    return tuple(created)


def await_leaders(client: AdminClient, made: Sequence[Topic]) -> None:
    """Waits until every partition answers: a broker acknowledges a topic before it leads it.

    Raises `KafkaException` with the last refusal after `ANSWER_S`.
    """
    places = [TopicPartition(topic.name, number) for topic in made for number in range(topic.partitions)]
    deadline_s = time.monotonic() + ANSWER_S
    while places:
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = client.list_offsets(dict.fromkeys(places, latest))
        refused = [(place, future.exception(timeout=ANSWER_S)) for place, future in asked.items()]
        places = [place for place, error in refused if error is not None]
        if places and time.monotonic() > deadline_s:
            raise next(error for _, error in refused if error is not None)
        time.sleep(0.02 if places else 0)


def main() -> int:
    """Creates what is missing at the configured broker; the exit status says whether all exist."""
    try:
        kafka = Settings.load().kafka
    except InvalidSettings as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        created = create_topics(kafka.bootstrap, topics(kafka))
    except KafkaException as error:
        sys.stderr.write(f"{kafka.bootstrap}: {error}\n")
        return 1
    sys.stderr.write(f"created: {', '.join(created) or 'nothing, all exist'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
