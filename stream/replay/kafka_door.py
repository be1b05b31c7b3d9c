"""Sends a replay to the Kafka door: one topic, keyed by the transaction's primary entity."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from confluent_kafka import KafkaError, Message, Producer

from stream.replay.history import typed
from stream.replay.item import Item
from stream.replay.manifest import Manifest


class Undelivered(RuntimeError):
    """The broker did not take a message in time: is it up, does the topic exist? The replay stops."""


@dataclass(frozen=True, slots=True)
class KafkaDoor:
    """Where and how. `linger_ms`: how long a batch may wait for company; `queue`: messages under way."""

    bootstrap: str
    topic: str = "transactions"
    linger_ms: int = 5
    queue: int = 100_000
    timeout_s: float = 30.0


class KafkaSender:
    """The running end of a `KafkaDoor`: idempotent, so the broker's retries repeat nothing. `send` blocks
    while the queue is full. Use as a context manager; `drain` waits for all deliveries."""

    def __init__(self, door: KafkaDoor, manifest: Manifest) -> None:
        self._door = door
        self._manifest = manifest
        self._failure: KafkaError | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": door.bootstrap,
                "enable.idempotence": True,
                "linger.ms": door.linger_ms,
                "compression.type": "lz4",
                "batch.num.messages": 10_000,
                "queue.buffering.max.messages": door.queue,
                "message.timeout.ms": int(door.timeout_s * 1000),
                "log_level": 3,
            }
        )

    def __enter__(self) -> "KafkaSender":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None:
            self.drain()
        else:
            self._producer.purge()
            self._producer.flush(1.0)

    def send(self, item: Item) -> None:
        """Hands a message to the producer. Raises `Undelivered`."""
        if self._failure is not None:
            raise Undelivered(f"{self._door.topic}: {self._failure}")
        while True:
            try:
                self._producer.produce(
                    self._door.topic, typed(item), item.key or None, on_delivery=self._delivered
                )
            except BufferError:
                self._producer.poll(0.05)
            else:
                self._producer.poll(0)
                return

    def drain(self) -> None:
        """Waits until the broker has everything. Raises `Undelivered`."""
        left = self._producer.flush(self._door.timeout_s)
        if left or self._failure is not None:
            raise Undelivered(f"{self._door.topic}: {self._failure or f'{left} messages not taken in time'}")

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self._manifest.answers["delivered"] += 1
        elif self._failure is None:
            self._failure = error


def sleep_until(due_s: float, clock: Callable[[], float]) -> float:
    """Sleeps until the clock shows `due_s`; returns how many seconds late it already was (0.0 if not)."""
    ahead_s = due_s - clock()
    if ahead_s > 0.0005:
        time.sleep(ahead_s)
        return 0.0
    return max(-ahead_s, 0.0)
