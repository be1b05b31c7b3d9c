"""A whole local stack in this process, for commands that check it: started, fed, awaited, read back."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
import uvloop
from confluent_kafka import Consumer, TopicPartition

from api.query_store import open_store
from cordon.log import LogIncomplete, LogReader, Record
from cordon.settings import Settings
from cordon.stack.local import Local, Options, local
from cordon.stack.supervisor import Stack
from features import Catalogue, load
from features.pseudonym import Pseudonyms
from features.redis_store import connect
from features.store import OnlineStore
from stream.replay.http_door import Answered, HttpDoor
from stream.replay.kafka_door import KafkaDoor
from stream.replay.manifest import Manifest
from stream.replay.passage import LoggedAndSeen, LogTopics
from stream.replay.run import Replay, to_http, to_kafka

PATIENCE_S = 120.0


@dataclass(slots=True)
class Pipeline:
    """A running stack with a reader on its log. `expected` counts what the log must come to hold."""

    plan: Local
    stack: Stack
    catalogue: Catalogue
    reader: LogReader
    store: OnlineStore
    expected: Counter[str] = field(default_factory=Counter)

    @property
    def settings(self) -> Settings:
        """The settings with the addresses of this stack."""
        return self.plan.settings

    @property
    def key(self) -> str:
        """The first of the configured keys."""
        return self.settings.service.api_keys.get_secret_value().split(",")[0].partition("=")[0]

    @property
    def headers(self) -> dict[str, str]:
        """What a request carries."""
        return {"Authorization": f"Bearer {self.key}"}

    @property
    def pseudonyms(self) -> Pseudonyms:
        """The tenant's keyed hashes, as the doors compute them."""
        return pseudonyms(self.settings)

    def kafka(self, replay: Replay) -> Manifest:
        """Replays into the Kafka door; blocks until everything is delivered to the broker."""
        manifest = to_kafka(
            replay, KafkaDoor(self.settings.kafka.bootstrap, self.settings.kafka.transactions)
        )
        self.expect(manifest.sent)
        return manifest

    def http(self, replay: Replay, answered: Answered | None = None) -> Manifest:
        """Replays into the HTTP door; blocks until everything is answered."""
        door = HttpDoor(self.plan.addresses["http"], self.headers)
        manifest = uvloop.run(to_http(replay, door, answered=answered))
        accepted: Counter[str] = Counter()
        for answer, number in manifest.answers.items():
            kind, _, status = answer.partition(":")
            accepted[kind] += number if status.startswith("2") else 0
        self.expect(manifest.sent & accepted)
        return manifest

    def expect(self, sent: Mapping[str, int]) -> None:
        """Note first deliveries that a door took, by kind: each must appear in the log once."""
        kafka = self.settings.kafka
        for kind, topic in (
            ("transaction", kafka.decisions),
            ("label", kafka.labels),
            ("event", kafka.events),
        ):
            self.expected[topic] += sent.get(kind, 0)

    def settle(self, *, flink: bool = True, patience_s: float = PATIENCE_S) -> None:
        """Waits until the log holds all that was sent and Flink has passed it. Raises `LogIncomplete`."""
        self.reader.until(self.expected, patience_s=patience_s)
        if flink:
            until_none("Flink", self.behind, patience_s)

    def drain(self, *, patience_s: float = PATIENCE_S) -> None:
        """Waits until nobody has anything left to do: after `settle` until the query store holds it as well.

        Webhooks read nothing while nobody is subscribed. Raises `LogIncomplete`.
        """
        self.settle(patience_s=patience_s)
        with contextlib.closing(open_store(self.settings.store_url)) as store:
            until_none("the projector", lambda: self.missing(store.positions()), patience_s)

    def dead_letters(self) -> int:
        """Messages in the dead-letter topic; its producer uses no transactions, so offsets count them."""
        kafka = self.settings.kafka
        consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": f"{kafka.group}-reader"})
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(kafka.dead_letters, 0), timeout=10)
        finally:
            consumer.close()
        return int(high - low)

    def behind(self) -> dict[tuple[str, int], int]:
        """Records of the log that Flink's watermark has not passed, per partition."""
        return self.missing({place: mark[1] for place, mark in self.store.watermark().items()})

    def missing(self, positions: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        """Records of the log from each of these next offsets to where it was read, where there are any."""
        lag = {place: end - positions.get(place, 0) for place, end in self.reader.reached.items()}
        return {place: records for place, records in lag.items() if records > 0}

    @contextlib.contextmanager
    def connected(self) -> Iterator[OnlineStore]:
        """A store of its own, for another thread."""
        store = connect(self.settings.redis.url, self.catalogue, self.settings.tenant)
        try:
            yield store
        finally:
            store.close()

    def rebuilding(self) -> bool:
        """Whether the store says that its state is being rebuilt from the log."""
        with self.connected() as store:
            return store.rebuilding()

    @contextlib.contextmanager
    def lockstep(self) -> Iterator[LoggedAndSeen]:
        """What a lockstep replay waits on."""
        kafka = self.settings.kafka
        topics = LogTopics(kafka.decisions, kafka.labels, kafka.events)
        client = redis.Redis.from_url(self.settings.redis.url)
        passage = LoggedAndSeen(kafka.bootstrap, topics, client, f"{{{self.settings.tenant}:meta}}:watermark")
        try:
            yield passage
        finally:
            passage.close()
            client.close()


def until_none(who: str, behind: Callable[[], Mapping[tuple[str, int], int]], patience_s: float) -> None:
    """Waits until nothing lies before `who`. Raises `LogIncomplete` after `patience_s`."""
    deadline_s = time.monotonic() + patience_s
    while left := behind():
        if time.monotonic() > deadline_s:
            raise LogIncomplete(f"{who} did not pass {left} within {patience_s:.0f} s")
        time.sleep(0.05)


def pseudonyms(settings: Settings) -> Pseudonyms:
    """The tenant's keyed hashes, as the doors compute them."""
    return Pseudonyms.of(settings.tenant, settings.secrets.pseudonym.get_secret_value())


@contextlib.contextmanager
def pipeline(
    directory: Path,
    overrides: Mapping[str, Any],
    *,
    options: Options | None = None,
    keep: Callable[[str, Record], None] = lambda topic, record: None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[Pipeline]:
    """Starts a stack below `directory` and stops it at the end. Raises what the supervisor raises."""
    plan = local(Settings.load(**overrides), directory, options)
    stack = Stack(plan.parts, directory, say=say)
    with stack:
        catalogue = load(plan.settings.catalogue.name)
        with LogReader(plan.settings.kafka, keep) as reader:
            store = connect(plan.settings.redis.url, catalogue, plan.settings.tenant)
            try:
                yield Pipeline(plan, stack, catalogue, reader, store)
            finally:
                store.close()
