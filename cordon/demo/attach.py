"""The demonstration on parts that run elsewhere, as with `docker compose up demo`.

The doors there wait for a model at the place that the settings name (`decide.model_dir`); the demonstration
trains it and puts a link there.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from cordon.failure import Failure
from cordon.settings import Kafka, Settings
from cordon.stack.probe import Attempt, Healthy

PATIENCE_S = 180.0
ANSWER_S = 10.0


class NotAttached(Failure):
    """The running parts cannot show a demonstration; the message says what to do first."""


def await_doors(model: Path, say: Callable[[str], None]) -> None:
    """Offers the model and waits until the service decides. Raises `NotAttached`."""
    settings = Settings.load()
    if decided(settings.kafka):
        raise NotAttached(
            "these parts have decided before, and the demonstration repeats its transactions' ids: "
            "empty them first (`docker compose down --volumes`)"
        )
    if settings.decide.model_dir is not None:
        offer(model, settings.decide.model_dir)
    address = f"http://{settings.service.host}:{settings.service.port}"
    say(f"waiting for {address}")
    ready = Healthy(f"{address}/health/ready")
    deadline_s = time.monotonic() + PATIENCE_S
    while not ready.ready(Attempt()):
        if time.monotonic() > deadline_s:
            raise NotAttached(f"{address} is not ready after {PATIENCE_S:.0f} s: read the service's log")
        time.sleep(0.5)


def offer(model: Path, place: Path) -> None:
    """Makes `place` a link to the model, in one step: whoever looks finds all of it or nothing."""
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f"{place.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(model.resolve())
    os.replace(new, place)


def decided(kafka: Kafka) -> bool:
    """Whether the log of decisions holds anything."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": f"{kafka.group}-demo"})
    try:
        partitions = (
            consumer.list_topics(kafka.decisions, timeout=ANSWER_S).topics[kafka.decisions].partitions
        )
        ends = [
            consumer.get_watermark_offsets(TopicPartition(kafka.decisions, number), timeout=ANSWER_S)
            for number in partitions
        ]
    finally:
        consumer.close()
    return any(last > first for first, last in ends)
