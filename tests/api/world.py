"""Small parts for the engine's tests: transactions, a deterministic model, an engine over a memory store."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from api.answer import Decided
from api.attempts import Attempts
from api.decide import Policy
from api.engine import Engine, Limits, QueryStoreUnavailable
from api.gauge import FreshnessGauge
from api.intake.compiled import best
from api.journal import Journal
from api.journal_reader import contents
from api.judge import Judge
from api.model import ServingModel
from api.rules.load import load as load_rules
from api.rules.rule import EMPTY, RuleSet
from api.rules.vocabulary import vocabulary_of
from api.work import Inbound, Intake, Sealing
from features import Catalogue, load
from features.memory_store import MemoryStore
from features.pseudonym import Pseudonyms
from features.rates import rates
from features.store import OnlineStore
from models.calibration import Calibrator
from models.policy import Costs
from models.policy import Policy as Bands
from models.reasons import Reason

CATALOGUE = load("payments")
PSEUDONYMS = Pseudonyms("demo", b"0123456789abcdef")
NOW_MS = 1_800_000_000_000
NUMBERS = itertools.count(1)


def transaction(id: str | None = None, **changes: Any) -> dict[str, Any]:
    """A valid transaction; `changes` with `None` remove a field."""
    body = {
        "transaction_id": id or f"t{next(NUMBERS)}", "time": NOW_MS, "amount": 4_599, "currency": "EUR",
        "card": "cd_a", "customer": "cu_a", "merchant": "me_a", "device": "de_a", "channel": "ecom",
        "category": "electronics",
    }  # fmt: skip
    return {k: v for k, v in (body | changes).items() if v is not None}


class StepScorer:
    """Margin = (amount in base minor units - 50,000) / 10,000: a model whose mind is easy to read."""

    mode: Literal["cpu"] = "cpu"
    width = 2
    broken = False

    def score(self, matrix: np.ndarray) -> np.ndarray:
        if self.broken:
            raise RuntimeError("the scorer broke")
        return (matrix[:, 0].astype(np.float64) - 50_000) / 10_000

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        margins = self.score(matrix)
        return np.stack([margins + 1.0, np.zeros(len(margins)), np.full(len(margins), -1.0)], axis=1)


class TopReason:
    def top(self, contributions: np.ndarray, *, count: int, audience: str) -> list[tuple[Reason, ...]]:
        return [
            (Reason("amount", f"unusual amount ({audience})", float(c[0]), ("amount",)),)
            for c in contributions
        ]


def model(scorer: StepScorer | None = None, **changes: Any) -> ServingModel:
    names = CATALOGUE.names
    features = ("amount", "card_count_1h")
    columns = np.array([names.index(f) for f in features], np.intp)
    bands = Bands(2_000.0, 20_000.0, 0.9, 0, Costs())
    calibrator = Calibrator((-5.0, 5.0), (0.001, 0.999))
    made = ServingModel("step-1", features, columns, scorer or StepScorer(), calibrator, bands, TopReason())
    return replace(made, **changes)


class NoPast:
    """A query store that knows what it was given, or is down."""

    def __init__(self) -> None:
        self.records: dict[str, Mapping[str, Any]] = {}
        self.down = False

    def record(self, transaction_id: str) -> Mapping[str, Any] | None:
        if self.down:
            raise QueryStoreUnavailable
        return self.records.get(transaction_id)


def shipped_rules() -> RuleSet:
    path = Path("deploy/rules/payments.toml")
    return load_rules(path, vocabulary_of(CATALOGUE), lambda e, v: PSEUDONYMS.entity(e, (v,)))


class Bench:
    """An engine with its parts. `now_ms`: wall clock of engine and store; `timer_ns`: the engine's timer."""

    def __init__(
        self,
        directory: Path,
        *,
        store: OnlineStore | None = None,
        serving: ServingModel | None = None,
        rules: RuleSet = EMPTY,
        worker: str = "service-0",
        limits: Limits | None = None,
        policy: Policy | None = None,
        observe: bool = True,
        sealing: Sealing | None = None,
        catalogue: Catalogue = CATALOGUE,
    ) -> None:
        self.now_ms, self.timer_ns = NOW_MS, 0
        self.directory = directory
        self.store = store or MemoryStore(catalogue.layouts, lambda: self.now_ms)
        self.journal = Journal(directory / worker, segment_bytes=1 << 20)
        tokens = (f"{worker}{i:x}".encode().ljust(16, b".")[:16] for i in itertools.count(1))
        intake = Intake(
            catalogue, PSEUDONYMS, rates("EUR"), lambda: next(tokens), observe=observe, sealing=sealing,
            stages=best(catalogue, PSEUDONYMS, rates("EUR")),
        )  # fmt: skip
        chosen = policy or Policy("test", 10_000, "score_anyway")
        self.judge = Judge(catalogue, "demo", serving, rules, chosen, "test", lambda: 0)
        self.past = NoPast()
        self.gauge = FreshnessGauge(self.store, stale_after_ms=1_000, every_ms=0)
        self.engine = Engine(
            intake, self.store, self.journal, self.judge, self.gauge, self.past, Attempts(directory),
            limits or Limits(), lambda: self.timer_ns, "demo",
        )  # fmt: skip

    def decide(self, *payloads: object, kind: str = "transaction") -> list[Any]:
        inbound = [Inbound(kind, p, "http") for p in payloads]  # type: ignore[arg-type]
        return self.whole(self.engine.decide_batch(inbound, now_ms=self.now_ms))

    def batch(self, *items: tuple[str, object]) -> list[Any]:
        inbound = [Inbound(kind, p, "kafka") for kind, p in items]  # type: ignore[arg-type]
        return self.whole(self.engine.decide_batch(inbound, now_ms=self.now_ms))

    def whole(self, answers: list[Any]) -> list[Any]:
        """Decisions with their records as they were written, instead of what answers take of them."""
        keys = [f"tx:{a.record['id']}" if isinstance(a, Decided) and not a.replay else None for a in answers]
        found = self.engine.attempts.find(key for key in keys if key is not None)
        return [
            a if key is None else a._replace(record=found[key].record)
            for a, key in zip(answers, keys, strict=True)
        ]

    def journalled(self) -> list[dict[str, Any]]:
        return list(contents(self.journal.directory))
