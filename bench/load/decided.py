"""Decisions as the publisher writes them, for benchmarks that need a full log: `Source` produces them."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import Producer

from cordon.tiles import Happened
from features.catalogue import Catalogue
from features.event import Identity, identify
from features.measure import TRANSACTION, Scalar
from features.pseudonym import Pseudonyms
from stream.world.spec import WorldSpec
from stream.world.tables import TRUTH
from stream.world.world import generate

PSEUDONYMS = Pseudonyms("demo", b"0123456789abcdef")
CUSTOMERS, TERMINALS = 5_000, 10_000
# One pseudonym of so many is checked, one transaction of so many is counted.
CHECKED, COUNTED = 256, 16


def transactions(catalogue: Catalogue, count: int) -> Iterator[tuple[int, Mapping[str, Scalar]]]:
    """Event times and fields of `count` transactions in time order: of a generated world, or random ones of
    the handbook's shape."""
    if catalogue.name == "payments":
        # A world makes about 1.6 transactions a customer and day; two months, as the demonstration has.
        world = generate(WorldSpec(customers=max(50, count // 80), days=60), 1)
        columns = [c for c in world.transactions.column_names if c not in (*TRUTH, "transaction_id")]
        for row in world.transactions.select(columns).slice(0, count).to_pylist():
            yield row.pop("time"), {name: value for name, value in row.items() if value is not None}
        return
    r = random.Random(1)
    for number in range(count):
        fields = {"customer": str(r.randrange(CUSTOMERS)), "terminal": str(r.randrange(TERMINALS))}
        yield 1_522_540_800_000 + number * 9_000, {**fields, "amount": r.randrange(100, 20_000)}


class Source:
    """Writes decisions; remembers those of some entities, and how many tiles some of them update.

    `tiles` / `counted`: an update is a tile of an entity and tier in which something counts, or a remembered
    value; last times and places ride along and are not counted.
    """

    def __init__(self, catalogue: Catalogue, bootstrap: str, partitions: int, count: int) -> None:
        self._catalogue = catalogue
        self._texts = self._decisions(count)
        settings = {"transactional.id": "bench", "linger.ms": 0, "queue.buffering.max.messages": 1_000_000}
        self._producer = Producer({"bootstrap.servers": bootstrap, **settings})
        self._producer.init_transactions()
        self.written = self.tiles = self.counted = self.bytes = 0
        self.ends = [0] * partitions
        self.checked: list[Happened] = []
        r = random.Random(2)
        # What a decision carries beside what Flink reads: as long as a real one.
        self._ballast = {
            "outcome": "approve", "score": 12, "probability": 0.0123, "margin": -4.2, "expected_loss": 12,
            "rules": [], "no_hit": [f"rule-{n}" for n in range(22)],
            "not_evaluated": {f"rule-{n}": ["card_feature_1h"] for n in range(22, 31)},
            "reasons": [{"code": "amount", "text": "unusual amount for the customer", "weight": 0.2}],
            "features": [round(r.random() * 100, 3) for _ in catalogue.features],
            "versions": {"model": "m1", "rules": "r1", "lists": "l1", "catalogue": "c1", "policy": "p1"},
            "freshness": {"flink_lag_ms": 12, "generation": "g", "state": "fresh"}, "degraded": [],
        }  # fmt: skip

    def fill(self, count: int) -> None:
        """Write in large transactions."""
        for first in range(0, count, 1_000):
            self._producer.begin_transaction()
            for _ in range(min(1_000, count - first)):
                self._produce(next(self._texts), self._delivered)
            self._producer.commit_transaction()

    def prepare(self, count: int) -> None:
        """Make the next records now, so that writing them at a rate costs little."""
        self._texts = iter([next(self._texts) for _ in range(count)])

    def write(self, each: int, due_s: Sequence[float], times_s: dict[tuple[int, int], float]) -> None:
        """One transaction of `each` records for each time that they were due, which `times_s` receives by
        (partition, offset)."""
        self._producer.begin_transaction()
        for at_s in due_s:
            for _ in range(each):
                self._produce(next(self._texts), self._noted(at_s, times_s))
        self._producer.commit_transaction()

    def _noted(self, at_s: float, times_s: dict[tuple[int, int], float]) -> Callable[[object, Any], None]:
        def delivered(error: object, message: Any) -> None:
            self._delivered(error, message)
            times_s[message.partition(), message.offset()] = at_s

        return delivered

    def _delivered(self, error: object, message: Any) -> None:
        assert error is None, error
        self.ends[message.partition()] = message.offset() + 1

    def _produce(self, made: tuple[str, str], delivered: Any) -> None:
        key, text = made
        self.written += 1
        self.bytes += len(text)
        self._producer.produce("decisions", text, key=key, on_delivery=delivered)
        self._producer.poll(0)

    def _decisions(self, count: int) -> Iterator[tuple[str, str]]:
        schema = self._catalogue.schema
        for number, (time_ms, values) in enumerate(transactions(self._catalogue, count)):
            found = identify(self._catalogue, PSEUDONYMS, values)
            ids = {name: found.entities.get(name, "0" * 16) for name in schema.identifying if name in values}
            body = {
                "type": "decision", "v": 2, "tenant": "demo", "id": str(number), "time_ms": time_ms,
                "transaction": {**values, **ids}, "entities": found.entities, "marks": found.marks,
            }  # fmt: skip
            some = {e: who for e, who in found.entities.items() if int(who[:8], 16) % CHECKED == 0}
            if some:
                self.checked.append(Happened(TRANSACTION, time_ms, dict(values), Identity(some, found.marks)))
            if number % COUNTED == 0:
                self._count(time_ms, values, found.entities, found.marks)
            key = found.entities.get(schema.primary, "none")
            yield key, json.dumps({**body, **self._ballast}, separators=(",", ":"))

    def _count(
        self,
        time_ms: int,
        values: Mapping[str, Scalar],
        entities: Mapping[str, str],
        marks: Mapping[str, int],
    ) -> None:
        self.counted += 1
        for entity, layout in self._catalogue.layouts.items():
            if entity in entities:
                seen = layout.observation(1, TRANSACTION, time_ms, values, marks)
                self.tiles += sum(any(seen.deltas[slot] for slot in slots) for slots in layout.tiers)
                self.tiles += sum(mark != 0 for mark in seen.marks)
