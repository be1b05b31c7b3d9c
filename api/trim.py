"""The topic of transactions, kept short: what is decided and in the log is deleted from it.

What producers wrote there is in plain text and cannot be sealed by anybody but them. A record goes once the
decision is journalled *and* shipped, so that a lost journal disk could still be made good from the topic.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

Place = tuple[str, int]
ANSWER_S: Final = 30.0
LOG = logging.getLogger("cordon.trim")


class Trimmer:
    """Deletes up to offsets that were handled. Never blocks: what the broker says is looked at next time."""

    def __init__(self, bootstrap: str, every_ms: int) -> None:
        """`every_ms`: how often; 0: never."""
        self._every_ms = every_ms
        self._client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}) if every_ms else None
        self._waiting: tuple[int, dict[Place, int]] | None = None
        self._asked: Mapping[TopicPartition, Any] = {}
        self._deleted: dict[Place, int] = {}
        self._asked_ms = 0

    def step(self, offsets: Mapping[Place, int], *, journalled: int, shipped: int, now_ms: int) -> None:
        """`offsets`: next ones to handle; all before them are in the journal's first `journalled` records or
        are dead letters. `shipped`: how many of the journal's records are in the log."""
        if self._client is None:
            return
        if self._waiting is not None and shipped >= self._waiting[0]:
            self._delete(self._client, self._waiting[1])
            self._waiting = None
        if self._waiting is None and now_ms - self._asked_ms >= self._every_ms:
            self._asked_ms = now_ms
            new = {place: at for place, at in offsets.items() if at > self._deleted.get(place, 0)}
            self._waiting = (journalled, new) if new else None

    def _delete(self, client: AdminClient, offsets: Mapping[Place, int]) -> None:
        self._settle()
        places = [TopicPartition(topic, partition, at) for (topic, partition), at in offsets.items()]
        try:
            self._asked = client.delete_records(places, request_timeout=ANSWER_S)
        except KafkaException as error:
            LOG.warning("transactions that are decided were not deleted, trying again: %s", error)

    def _settle(self) -> None:
        """Note what was deleted; what was not is asked for again, since offsets only grow."""
        for place, future in self._asked.items():
            if not future.done():
                continue
            error = future.exception()
            if error is None:
                self._deleted[place.topic, place.partition] = future.result().low_watermark
            else:
                LOG.warning("transactions that are decided were not deleted, trying again: %s", error)
        self._asked = {}
