"""The reader: records of the log into the box, positions and deliveries in one step.

While nobody is subscribed nothing is read: the reader notes where the log ends, and only then looks whether
somebody has subscribed since. So what is logged after a subscription lies behind a place noted before it.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from api.config import ServiceConfig
from api.record import decode_json
from api.webhooks.box import Box, BoxUnavailable
from api.webhooks.event import event_of

BATCH: Final = 500
WAIT_S: Final = 0.2
# Each commit is synced, on the disk that the journals share: one for what comes within so many seconds.
GATHER_S: Final = 0.25
LOOK_S: Final = 30
# Without subscriptions: how often is looked for one, and at the log's end, and how often that is stored.
ASK_EVERY_S: Final = 0.25
NOTE_EVERY_MS: Final = 1_000
STORE_EVERY_MS: Final = 10_000
LOG = logging.getLogger("cordon.webhooks")


class Reader:
    """A consumer of decisions, alerts and audit records. What was there before its first start is past."""

    def __init__(
        self,
        config: ServiceConfig,
        box: Box,
        clock: Callable[[], int],
        sleep: Callable[[float], None],
    ) -> None:
        self._config = config
        self._box = box
        self._clock = clock
        self._sleep = sleep
        self._next: dict[tuple[str, int], int] = {}
        self.failure: BaseException | None = None
        self.stopping = False

    def run(self) -> None:
        """Until `stopping`; for a thread of its own. What ends it is in `failure`."""
        try:
            while not self.stopping:
                try:
                    self._follow()
                except BoxUnavailable as error:
                    LOG.warning("nothing is read now: %s", error)
                    self._sleep(1.0)
        except Exception as error:  # noqa: BLE001 - outermost of this thread; the process ends with it
            self.failure = error

    def _follow(self) -> None:
        consumer = Consumer(settings(self._config))
        try:
            self._next = self._begin(consumer)
            LOG.info("ready: webhooks")
            while not self.stopping:
                if self._box.subscriptions():
                    self._read(consumer)
                else:
                    self._pass_over(consumer)
        finally:
            consumer.close()

    def _read(self, consumer: Consumer) -> None:
        """What comes next, as long as somebody is subscribed."""
        consumer.assign([TopicPartition(*place, at) for place, at in self._next.items()])
        try:
            while not self.stopping and self._box.subscriptions():
                first = consumer.consume(1, WAIT_S)
                messages = [*first, *consumer.consume(BATCH, 0)] if first else []
                self._take_in(messages)
                if 0 < len(messages) < BATCH:
                    self._sleep(GATHER_S)
        finally:
            consumer.unassign()

    def _pass_over(self, consumer: Consumer) -> None:
        """Follow the log's end without reading, until somebody is subscribed."""
        noted_ms = stored_ms = 0
        while not self.stopping:
            now_ms = self._clock()
            noting = now_ms - noted_ms >= NOTE_EVERY_MS
            ends = self._ends(consumer) if noting else {}
            if self._box.subscriptions():
                return
            self._next |= ends
            if noting:
                noted_ms = now_ms
            if noting and now_ms - stored_ms >= STORE_EVERY_MS:
                self._box.take_in((), self._next, now_ms)
                stored_ms = now_ms
            self._sleep(ASK_EVERY_S)

    def _ends(self, consumer: Consumer) -> dict[tuple[str, int], int]:
        """Where the log ends now; of all places at once."""
        asked = [TopicPartition(*place, OFFSET_END) for place in self._next]
        found = consumer.offsets_for_times(asked, timeout=LOOK_S)
        return {(at.topic, at.partition): at.offset for at in found if at.error is None and at.offset >= 0}

    def _begin(self, consumer: Consumer) -> dict[tuple[str, int], int]:
        """Where to read on, of each partition."""
        topics = self._config.topics
        known = consumer.list_topics(timeout=LOOK_S).topics
        positions = self._box.positions()
        found = {}
        for topic in (topics.decisions, topics.alerts, topics.checkpoints):
            for part in known[topic].partitions if topic in known else {}:
                at = positions.get((topic, part))
                if at is None:
                    # From now on; written down, so that the next life does not begin later still.
                    _, at = consumer.get_watermark_offsets(TopicPartition(topic, part), timeout=LOOK_S)
                    at = OFFSET_END if at is None else at
                    self._box.take_in((), {(topic, part): at}, self._clock())
                found[topic, part] = at
        return found

    def _take_in(self, messages: list[Any]) -> None:
        events = []
        positions: dict[tuple[str, int], int] = {}
        for message in messages:
            fault = message.error()
            if fault is not None:
                if fault.code() == KafkaError._PARTITION_EOF or fault.retriable():
                    continue
                raise KafkaException(fault)
            event = event_of(decode_json(message.value() or b"{}"))
            if event is not None:
                events.append(event)
            positions[message.topic(), message.partition()] = message.offset() + 1
        if positions:
            self._box.take_in(events, positions, self._clock())
            self._next |= positions


def settings(config: ServiceConfig) -> dict[str, Any]:
    """Settings of the consumer; its positions are in the box."""
    return {
        "bootstrap.servers": config.kafka,
        "group.id": f"{config.topics.group}-webhooks",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        # A fetch costs the broker about the same for one record as for many.
        "fetch.min.bytes": 1_000_000,
        "fetch.wait.max.ms": round(GATHER_S * 1_000),
        "queued.max.messages.kbytes": 16_384,
        "log_level": 3,
    }
