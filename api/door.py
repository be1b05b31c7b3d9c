"""The Kafka door: `python -m api.door`. Micro-batches from the topic of transactions through the engine.

Offsets are committed after the journal; what is delivered again is answered by its claims. A message that
cannot be answered yet (its claim is pending, the store is down and it is a label) is kept aside, and its
partition's offset is held before it. Partitions of a backlog are taken in one order of event time. Exit
status 3: too many bad messages in a row.
"""

import logging
import secrets
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from msgspec import structs

from api.alignment import Aligner
from api.answer import Answer, Pending, Unavailable, Unknown
from api.brakes.patrol import Round
from api.compose import Parts, compose, settle_garbage
from api.config import InvalidConfiguration, ServiceConfig, here
from api.flight import Flight
from api.journal import JournalBusy, JournalUnavailable
from api.letter import BadRun, Envelopes, Fault, Place, fault_of
from api.metrics import Metrics, count_answer
from api.model import ModelRefused
from api.record import decode_json
from api.rules.load import RuleSetError
from api.trim import Trimmer
from api.work import EventKind, Inbound
from features import SchemaError
from features.store import StoreUnavailable

ASIDE_MAX: Final = 5_000
AHEAD_BATCHES: Final = 8
"""Batches of one partition that may wait for the others."""
PATIENCE_S: Final = 1.0
"""How long others wait for a partition that neither delivers nor says that it has ended."""
RETRY_S: Final = 0.05
PIECES: Final = 16
"""Of what is taken at once: the store's time passes while other pieces are worked at. The replies to a piece
must fit the socket's buffer, or the store waits for somebody who reads them."""
FLYING_MAX: Final = 3
SIZE_MIN: Final = 8
SWEEP_EVERY_MS: Final = 10_000
EXIT_TOO_MANY_BAD: Final = 3
LOG = logging.getLogger("cordon.door")
_KINDS: Final[dict[str, EventKind]] = {"transaction": "transaction", "label": "label", "event": "event"}


class TooManyBad(Exception):
    """More bad messages in a row than allowed: a bad deploy, not bad luck. Stop, look, start again."""


class Taken(msgspec.Struct, frozen=True, gc=False):
    """One message: where it stood, its bytes, and the event, or why it is none."""

    place: Place
    value: bytes
    event: Inbound | Fault


def read_message(place: Place, value: bytes | None) -> Taken:
    """Decode a message; `type` says what it is."""
    raw = value or b""
    try:
        payload = decode_json(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Taken(place, raw, Fault("malformed", "body", str(error), invalid=True))
    if not isinstance(payload, dict):
        return Taken(place, raw, Fault("malformed", "body", "must be a JSON object", invalid=True))
    kind = _KINDS.get(str(payload.get("type", "transaction")))
    if kind is None:
        return Taken(place, raw, Fault("unknown_value", "type", "is no known type", invalid=True))
    return Taken(place, raw, Inbound(kind, payload, "kafka"))


class Door:
    """Consumer, engine and dead letters. `clock`: wall clock in ms; `sleep`: seconds."""

    def __init__(
        self,
        parts: Parts,
        clock: Callable[[], int],
        metrics: Metrics,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.parts = parts
        self._metrics = metrics
        self.config = parts.config
        self._clock = clock
        self._sleep = sleep
        self._aside: list[Taken] = []
        self._aligner: Aligner[tuple[str, int], Taken] = Aligner(AHEAD_BATCHES * self.config.door_batch)
        self._paused: set[tuple[str, int]] = set()
        self._waiting_since_s: float | None = None
        self._next: dict[tuple[str, int], int] = {}
        self._bad = BadRun(self.config.dead_letters_max)
        self._size_max = max(SIZE_MIN, self.config.door_batch // PIECES)
        self._size = self._size_max
        self._todo: list[Taken] = []
        self._flying: deque[tuple[list[Taken], Flight]] = deque()
        self._recorded: deque[tuple[list[Taken], Flight]] = deque()
        self._swept_ms = 0
        self._letters_failed: KafkaError | None = None
        self._round = Round(parts.patrol)
        self._envelopes = Envelopes(parts.catalogue.schema, parts.pseudonyms, parts.sealer)
        self._trimmer = Trimmer(self.config.kafka, self.config.trim_ms)
        self.decided = 0
        self.stopping = False
        self._consumer = Consumer(consumer_settings(self.config))
        self._letters = Producer(
            {
                "bootstrap.servers": self.config.kafka,
                "enable.idempotence": True,
                "linger.ms": 2,
                "log_level": 3,
            }
        )

    def run(self) -> None:
        """Consume until `stopping`. Raises `TooManyBad`, `JournalFenced`, `KafkaException`."""
        topic = self.config.topics.transactions
        self._consumer.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked)
        self._round.start()
        try:
            while not self.stopping:
                self._step()
            self._commit(asynchronous=False)
        finally:
            self._round.end()
            self._consumer.close()

    def _step(self) -> None:
        stuck = len(self._aside) >= ASIDE_MAX
        # Nothing new until what waits is answered; the broker must still hear from us.
        self._hold_back(set(self._assignment()) if stuck else self._aligner.full())
        enough = len(self._aligner) >= self.config.door_batch
        self._read(0.0 if enough else RETRY_S if self._aside or len(self._aligner) else 0.2)
        if stuck:
            self._sleep(RETRY_S)
        taken = [] if stuck else self._take()
        waiting, self._aside = self._aside, []
        self._todo = [*waiting, *taken]
        self._decide()
        self._sweep()
        self._follow_rules()
        self._follow_keys()
        self._trim()

    def _read(self, patience_s: float) -> None:
        """Into the aligner what is there; waits for the first message only."""
        first = self._consumer.consume(1, patience_s)
        messages = [*first, *self._consumer.consume(self.config.door_batch - 1, 0)] if first else []
        read: dict[tuple[str, int], int] = {}
        for message in messages:
            fault = message.error()
            where = message.topic() or "", message.partition() or 0
            if fault is None:
                taken = read_message(Place(*where, message.offset() or 0), message.value())
                self._aligner.put(where, self._event_time(taken), taken)
                read[where] = taken.place.offset + 1
            elif fault.code() == KafkaError._PARTITION_EOF:
                self._aligner.end(where)
            elif not fault.retriable():
                raise KafkaException(fault)
        for where, after in read.items():
            # The end as the newest fetch saw it: nobody waits for another one to say that there is no more.
            _, end = self._consumer.get_watermark_offsets(TopicPartition(*where), cached=True)
            if after == end:
                self._aligner.end(where)

    def _take(self) -> list[Taken]:
        """The next batch by event time; not without a partition that still owes messages, unless it is silent
        for long."""
        now_s = time.monotonic()
        since_s = self._waiting_since_s
        taken = self._aligner.take(
            self.config.door_batch, impatient=since_s is not None and now_s - since_s > PATIENCE_S
        )
        waits = not taken and len(self._aligner) > 0
        self._waiting_since_s = (since_s or now_s) if waits else None
        for item in taken:
            self._next[item.place.topic, item.place.partition] = item.place.offset + 1
        return taken

    def _event_time(self, taken: Taken) -> int:
        """What orders a message among partitions; what has no time goes at once."""
        if not isinstance(taken.event, Inbound) or not isinstance(taken.event.payload, dict):
            return 0
        schema = self.parts.engine.intake.catalogue.schema
        value = taken.event.payload.get(schema.time if taken.event.kind == "transaction" else "time")
        if isinstance(value, str):
            try:
                return round(datetime.fromisoformat(value).timestamp() * 1000)
            except ValueError:
                return 0
        return value if isinstance(value, int) else 0

    def _assignment(self) -> list[tuple[str, int]]:
        return [(p.topic, p.partition) for p in self._consumer.assignment()]

    def _hold_back(self, wanted: set[tuple[str, int]]) -> None:
        """Read no more of these partitions, and of the others again."""
        if gone := self._paused - wanted:
            self._consumer.resume([TopicPartition(*where) for where in gone])
        if new := wanted - self._paused:
            self._consumer.pause([TopicPartition(*where) for where in new])
        self._paused = set(wanted)

    def _decide(self) -> None:
        """All that is to do, in pieces: while store and disk are at some, others are worked at.

            piece 1   begin | .. store .. | record | .. disk .. | answer
            piece 2           begin | .. store ..      | record | .. disk .. | answer

        Nobody waits for the disk while there is anything else to do. Raises what landing does.
        """
        engine = self.parts.engine
        while self._todo or self._flying or self._recorded:
            if self._todo and len(self._flying) < FLYING_MAX:
                now, self._todo = self._todo[: self._size], self._todo[self._size :]
                self._flying.append((now, self._begin(now)))
            elif self._flying:
                engine.record(self._flying[0][1])
                self._recorded.append(self._flying.popleft())
            more = self._flying or self._todo
            if self._recorded and (not more or engine.is_durable(self._recorded[0][1])):
                taken, flight = self._recorded.popleft()
                self._land(taken, engine.answer(flight))
            engine.gather()
        engine.flush(now_ms=self._clock())
        self._commit(asynchronous=True)

    def _begin(self, taken: Sequence[Taken]) -> Flight:
        events = [t.event for t in taken if isinstance(t.event, Inbound)]
        self._metrics.observe("cordon_batch_size", len(taken), "kafka")
        journal = self.parts.journal
        self._metrics.set("cordon_journal_backlog_records", journal.backlog, journal.directory.name)
        return self.parts.engine.begin(events, now_ms=self._clock())

    def _land(self, taken: Sequence[Taken], found: Sequence[Answer]) -> None:
        """What became of one piece: letters, what is kept aside. Raises `TooManyBad`."""
        answers = iter(found)
        stopped = False
        blocked = False
        in_time = True
        for number, item in enumerate(taken):
            answer = next(answers) if isinstance(item.event, Inbound) else None
            fault = item.event if isinstance(item.event, Fault) else _fault(answer)
            if answer is not None:
                count_answer(self._metrics, answer, "kafka")
            early = isinstance(answer, Unknown) and answer.transaction_id in self._waiting_ids()
            if (early or isinstance(answer, Pending | Unavailable)) and isinstance(item.event, Inbound):
                waiting = structs.replace(item.event, waited=True)
                self._aside.append(structs.replace(item, event=waiting))
                if isinstance(answer, Unavailable):
                    in_time = in_time and answer.part != "time"
                    blocked = blocked or answer.part not in ("store", "time")
                continue
            if not self._bad.note(bad=fault is not None and fault.invalid):
                stopped = True
                self._todo = [*taken[number:], *self._todo]
                break
            if fault is not None:
                self._letter(fault, item)
            else:
                self.decided += 1
        # A batch that did not make it in time is tried again in smaller pieces.
        self._size = min(self._size * 2, self._size_max) if in_time else max(SIZE_MIN, self._size // 2)
        if stopped:
            self._record_flying()
        self._deliver_letters()
        if stopped:
            self._commit(asynchronous=False)
            raise TooManyBad(
                f"more than {self._bad.limit} bad messages in a row; nothing was skipped silently"
            )
        if blocked:
            self._sleep(RETRY_S * 10)

    def _record_flying(self) -> None:
        """What the store has seen is recorded before the door stops; it is delivered again, and replayed."""
        engine = self.parts.engine
        while self._recorded or self._flying:
            if self._recorded:
                taken, flight = self._recorded.popleft()
            else:
                taken, flight = self._flying.popleft()
                engine.record(flight)
            engine.answer(flight)
            self._todo = [*self._todo, *taken]

    def _waiting_ids(self) -> set[object]:
        """Transactions kept aside: what follows them is not unknown, only early."""
        events = [item.event for item in self._aside if isinstance(item.event, Inbound)]
        name = self.parts.engine.intake.catalogue.schema.id
        return {
            e.payload.get(name) for e in events if e.kind == "transaction" and isinstance(e.payload, dict)
        }

    def _letter(self, fault: Fault, item: Taken) -> None:
        self._metrics.count("cordon_dead_letters", fault.code)
        value = self._envelopes.letter(fault, item.place, item.value, self._clock())
        self._letters.produce(
            self.config.topics.dead_letters, value, item.place.id, on_delivery=self._note_delivery
        )

    def _note_delivery(self, error: KafkaError | None, _: Any) -> None:
        self._letters_failed = self._letters_failed or error

    def _deliver_letters(self) -> None:
        """Before the offsets: a dead letter may come twice, never not at all."""
        if len(self._letters) and self._letters.flush(30):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "dead letters were not delivered"))
        if self._letters_failed is not None:
            raise KafkaException(self._letters_failed)

    def _handled(self) -> dict[tuple[str, int], int]:
        """Next offset of every partition: all before it is in the journal, or a dead letter."""
        offsets = dict(self._next)
        flying = [item for taken, _ in (*self._recorded, *self._flying) for item in taken]
        for item in (*self._aside, *flying, *self._todo):
            where = item.place.topic, item.place.partition
            if where in offsets:
                offsets[where] = min(offsets[where], item.place.offset)
        return offsets

    def _commit(self, *, asynchronous: bool) -> None:
        offsets = self._handled()
        if not offsets:
            return
        places = [TopicPartition(topic, partition, at) for (topic, partition), at in offsets.items()]
        try:
            if asynchronous:
                self._consumer.commit(offsets=places, asynchronous=True)
            else:
                self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            # Delivered again then, and answered by the claims.
            LOG.warning("offsets not committed: %s", error)

    def _sweep(self) -> None:
        now_ms = self._clock()
        if now_ms - self._swept_ms < SWEEP_EVERY_MS:
            return
        self._swept_ms = now_ms
        try:
            found = self.parts.engine.sweep(now_ms=now_ms)
        except StoreUnavailable:
            return
        if found:
            self._metrics.count("cordon_abandoned", by=found)
            LOG.warning("%d abandoned attempts recorded", found)

    def _follow_rules(self) -> None:
        """Between two steps, and after half a second without messages: what was published is live."""
        if self._round.failure is not None:
            raise self._round.failure
        feed = self.parts.feed
        if not feed.changed():
            return
        update = feed.read()
        if update is not None:
            self.parts.judge.adopt(update)
            LOG.info("rules: %s", self.parts.judge.rules.version)

    def _follow_keys(self) -> None:
        """As with the rules: keys that were destroyed are forgotten here, too."""
        if self.parts.follower.changed():
            self.parts.follow_keys(self.parts.follower.read())

    def _trim(self) -> None:
        journal = self.parts.journal
        self._trimmer.step(
            self._handled(),
            journalled=journal.head.sequence,
            shipped=journal.mark.shipped,
            now_ms=self._clock(),
        )

    def _assigned(self, _: Consumer, places: list[TopicPartition]) -> None:
        self._aligner.assign((p.topic, p.partition) for p in places)
        LOG.info("ready: door, partitions %s", sorted(p.partition for p in places))

    def _revoked(self, _: Consumer, places: list[TopicPartition]) -> None:
        gone = {(p.topic, p.partition) for p in places}
        self._commit(asynchronous=False)
        self._aside = [item for item in self._aside if (item.place.topic, item.place.partition) not in gone]
        self._aligner.revoke(gone)
        self._paused -= gone
        for where in gone:
            self._next.pop(where, None)


def _fault(answer: Answer | None) -> Fault | None:
    return None if answer is None else fault_of(answer)


def consumer_settings(config: ServiceConfig) -> dict[str, Any]:
    """Settings of the door's consumer."""
    return {
        "bootstrap.servers": config.kafka,
        "group.id": f"{config.topics.group}-door",
        "group.instance.id": f"{config.topics.group}-door-{config.door_worker}",
        "client.id": f"door-{config.door_worker}-{secrets.token_hex(3)}",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "range",
        "session.timeout.ms": 10_000,
        # A fetch that waits costs the broker nothing until it ends. What ends behind a transaction's marker
        # is only known to have ended then.
        "fetch.wait.max.ms": 200,
        "queued.max.messages.kbytes": 16_384,
        "log_level": 3,
    }


def now_ms() -> int:
    """Wall clock."""
    return time.time_ns() // 1_000_000


def main() -> int:
    """Run until told to stop; the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        config = here()
        # Nobody waits at a till for this door: its batches may take longer before they are degraded.
        config = replace(config, redis_timeout_ms=config.redis_door_timeout_ms)
        parts = compose(config, f"door-{config.door_worker}", time.perf_counter_ns, now_ms)
    except (
        InvalidConfiguration, JournalBusy, JournalUnavailable, RuleSetError, ModelRefused, SchemaError,
    ) as error:  # fmt: skip
        LOG.error("%s", error)
        return 2
    settle_garbage()
    metrics = Metrics()
    metrics.serve(config.host, config.metrics_port)
    parts.patrol.metrics = metrics
    door = Door(parts, now_ms, metrics)

    def stop(*_: object) -> None:
        door.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        door.run()
    except TooManyBad as error:
        LOG.error("stopped: %s", error)
        return EXIT_TOO_MANY_BAD
    finally:
        parts.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
