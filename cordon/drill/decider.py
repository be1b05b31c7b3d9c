"""Decisions by the million: `decide()` over generated transactions, a trained model, the shipped rules.

A world's transactions go once through validation, pseudonyms and the reference store; what the store said of
each is kept. From then on they come again and again under new ids and with other amounts: vectors, scores,
rules, decisions, reasons and records are made anew each time by the code that serves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, Final, Self

from msgspec.structs import replace

from api.compose import code_version
from api.decide import Freshness, Policy
from api.judge import Judge, Read
from api.record import decode_json, members, pack
from api.rules.load import load as load_rules
from api.rules.vocabulary import vocabulary_of
from api.serving import open_model
from api.work import CORE, Inbound, Intake, Work
from cordon.evidence import ROOT
from features import Catalogue, load
from features.event import Transaction
from features.history import load_history
from features.memory_store import MemoryStore
from features.pseudonym import Pseudonyms
from features.rates import rates
from models.pipeline import train_history
from models.train import TrainingPlan
from stream.replay.history import History, extent, transactions
from stream.world.spec import WorldSpec
from stream.world.world import generate, write_history

WORLD: Final = WorldSpec(customers=300, days=40, fraud_share=0.02)
WORLD_SEED: Final = 7
BATCH: Final = 512  # the Kafka door's
TENANT: Final = "drill"


@dataclass(slots=True)
class Decider:
    """What was read, and who decides it."""

    judge: Judge
    reads: list[Read]
    now_ms: int

    @classmethod
    def make(cls, directory: Path, distinct: int, say: Callable[[str], None]) -> Self:
        """Generate a world below `directory`, train on it, read at most `distinct` of its transactions.

        Takes about a minute. Raises what training raises.
        """
        catalogue = load("payments")
        path = directory / "world.parquet"
        write_history(generate(WORLD, WORLD_SEED), path)
        delay_ms = catalogue.schema.label_delay_ms
        past = load_history(path, catalogue.schema, label_delay_ms=delay_ms)
        plan = TrainingPlan(delay_ms, seed=1)
        cutoff_ms = int(past.time_ms.max()) + delay_ms
        model, _ = train_history(catalogue, past, directory / "models", cutoff_ms=cutoff_ms, plan=plan)
        say(f"trained {model.name} on {len(past):,} transactions")
        pseudonyms = Pseudonyms(TENANT, b"a key for this drill alone")
        rules = load_rules(
            ROOT / "deploy" / "rules" / "payments.toml",
            vocabulary_of(catalogue),
            lambda entity, id: pseudonyms.entity(entity, (id,)),
        )
        judge = Judge(
            catalogue, TENANT, open_model(model, catalogue), rules, Policy.of(10_000, "score_anyway"),
            code_version(), lambda: 0,
        )  # fmt: skip
        judge.warm_up()
        reads = list(islice(_reads(catalogue, pseudonyms, path), distinct))
        return cls(judge, reads, reads[-1].work.time_ms)

    def batches(self, records: int, prefix: str) -> Iterator[list[bytes]]:
        """So many journal bodies, in batches; ids begin with `prefix`."""
        freshness = Freshness("fresh", "drill", 0)
        for first in range(0, records, BATCH):
            numbers = range(first, min(first + BATCH, records))
            reads = [self._again(number, prefix) for number in numbers]
            made = self.judge.records(
                reads, freshness, self.now_ms + first, {"batch": len(reads), "observe": 0}
            )
            yield [
                pack(one.kind, read.work.identity.entities["merchant"], one.payload)
                for read, one in zip(reads, made, strict=True)
            ]

    def _again(self, number: int, prefix: str) -> Read:
        """A transaction under another id, with an amount up to a quarter larger or smaller."""
        read = self.reads[number % len(self.reads)]
        percent = 75 + number * 7_919 % 51
        return replace(read, work=_varied(read.work, f"{prefix}{number}", percent))


def _varied(work: Work, id: str, percent: int) -> Work:
    amount = max(1, int(str(work.values["amount"])) * percent // 100)
    shown: dict[str, Any] = {**work.facts["transaction"], "amount": amount}
    facts = {**work.facts, "id": id, "transaction": shown}
    core = members({key: facts[key] for key in CORE})
    return replace(work, id=id, facts=facts, core=core, values={**work.values, "amount": amount})


def _reads(catalogue: Catalogue, pseudonyms: Pseudonyms, path: Path) -> Iterator[Read]:
    """What the reference store says of each transaction, in order."""
    now_ms = 0
    tokens = (number.to_bytes(16, "big") for number in count(1))
    intake = Intake(catalogue, pseudonyms, rates(catalogue.schema.base_currency), lambda: next(tokens))
    store = MemoryStore(catalogue.layouts, lambda: now_ms)
    history = History(path, catalogue.schema)
    for item in transactions(history, extent(history)):
        event = intake.parse(Inbound("transaction", decode_json(item.body), "kafka"))
        if isinstance(event, Transaction):
            work = intake.transaction(event, "kafka")
            now_ms = work.time_ms
            yield Read(work, store.arrive([work.arrival], now_ms=now_ms, deadline_ms=now_ms + 1_000)[0])
