"""`cordon rules bench`: what a rule costs as it is served, and how fast a draft runs over stored decisions.

The decisions are synthetic (seeded), of the payments catalogue's own shape; before anything is timed, both
forms of every rule must say the same about a sample of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from api.backtest import backtest, counted, tables
from api.rules.load import build
from api.rules.rule import Circumstances, Facts, RuleSet
from api.rules.vocabulary import Type, Vocabulary, vocabulary_of
from api.stored import StoredColumns, facts_of, schema_of, sources_of
from api.tally import RuleTally
from cordon.failure import Failure
from features import Catalogue, load

RULES: Final = 30
FEATURES: Final = 60
DECISIONS: Final = 1_000_000
SAMPLE: Final = 2_000
ROUNDS: Final = 15
PIECE: Final = 100_000
NS_PER_RULE_MAX: Final = 1_000.0
BACKTEST_S_MAX: Final = 10.0
MATURE_MS: Final = 7 * 86_400_000
START_MS: Final = 1_760_000_000_000


class FormsDiffer(Failure):
    """The closure and the columns disagree: neither may be measured, let alone served."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. `features`: how many the rules read."""

    rules: int
    features: int
    ns_per_rule: float
    decisions: int
    backtest_s: float
    checked: int

    @property
    def holds(self) -> bool:
        """Whether the bar holds."""
        return self.ns_per_rule < NS_PER_RULE_MAX and self.backtest_s < BACKTEST_S_MAX

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "rules": self.rules,
            "features": self.features,
            "ns_per_rule": round(self.ns_per_rule, 1),
            "backtest_decisions": self.decisions,
            "backtest_s": round(self.backtest_s, 3),
            "answers_compared": self.checked,
        }


def measure(directory: Path, decisions: int, say: Callable[[str], None]) -> Measured:
    """Write decisions below `directory`, compare, time. Raises `FormsDiffer`."""
    catalogue = load("payments")
    rules = build(bench_rules(vocabulary_of(catalogue), catalogue), vocabulary_of(catalogue), lambda _, v: v)
    write(directory, catalogue, decisions)
    say(f"{decisions:,} decisions written")
    sample = next(tables(sorted((directory / "decisions").glob("*.parquet"))[:1], rules)).slice(0, SAMPLE)
    facts = list(facts_of(sample, rules))
    checked = compare(rules, sample, facts)
    say(f"{checked:,} answers of the closures are those of the columns")
    started = time.perf_counter()
    fingerprint, timer = catalogue.vector_fingerprint, time.perf_counter_ns
    found = backtest(rules, directory, fingerprint, mature_ms=MATURE_MS, timer=timer)
    backtest_s = time.perf_counter() - started
    say(f"{len(rules.rules)} rules over {found.decisions:,} decisions in {backtest_s:.2f} s")
    ns_per_rule = scalar_ns(rules, facts)
    say(f"{ns_per_rule:.0f} ns per rule")
    used = sum(1 for _, source in rules.words.values() if source == "feature")
    return Measured(len(rules.rules), used, ns_per_rule, found.decisions, backtest_s, checked)


def bench_rules(words: Vocabulary, catalogue: Catalogue) -> str:
    """A set of `RULES` rules over `FEATURES` features and what else rules use, as TOML."""
    names = [n for n in catalogue.names if words.words[n].source == "feature"][:FEATURES]
    lines = ['name = "bench"', '[lists.cards]\nof = "card"\nentry = [']
    lines += [f'{{ value = "card{i}", reason = "bench", author = "bench" }},' for i in range(0, 200, 2)]
    lines.append("]")
    for number in range(RULES):
        first, second = names[2 * number], names[2 * number + 1]
        tail = (
            "amount > 120.00",
            'channel in ["ecom", "moto"]',
            "score >= 400",
            "card not in @cards",
            'value_or(ip_country, "DE") != "FR"',
        )[number % 5]
        action = ("challenge", "review", "decline")[number % 3]
        join = "or" if number % 4 == 1 else "and"
        text = f"{action} if ({_part(first, words)} {join} {_part(second, words)}) and {tail}"
        lines.append(
            f'[[rule]]\nid = "rule_{number}"\ntext = \'{text}\'\nreason = "bench"\nowner = "bench"\n'
            'example = [{ given = {}, result = "not_evaluated" }]'
        )
        if number % 10 == 3:
            lines.append("rollout_percent = 50")
    return "\n".join(lines)


def _part(name: str, words: Vocabulary) -> str:
    kind = words.words[name].type
    return name if kind is Type.FLAG else f"{name} > {'30.00' if kind is Type.MONEY else '2.5'}"


def write(directory: Path, catalogue: Catalogue, decisions: int) -> None:
    """Synthetic decisions and labels of one in a hundred, below `directory`."""
    random = np.random.default_rng(1)
    for part in ("decisions", "labels"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    for first in range(0, decisions, PIECE):
        table = synthetic(catalogue, first, min(PIECE, decisions - first), random)
        pq.write_table(table, directory / "decisions" / f"{first:09}.parquet", compression="zstd")
    ids = np.arange(0, decisions, 100)
    labels = {
        "transaction_id": pa.array([f"t{i}" for i in ids.tolist()]),
        "time_ms": pa.array(START_MS + ids * 1_000 + 86_400_000),
        "fraud": pa.array(random.random(len(ids)) < 0.9),
    }
    pq.write_table(pa.table(labels), directory / "labels" / "labels.parquet")


def synthetic(catalogue: Catalogue, first: int, rows: int, random: np.random.Generator) -> pa.Table:
    """Decisions whose values are spread as counts, money and flags are; a tenth of each is absent."""
    schema, words = schema_of(catalogue), vocabulary_of(catalogue).words
    numbers = np.arange(first, first + rows)
    columns: dict[str, Any] = {
        "id": pa.array([f"t{i}" for i in numbers.tolist()]),
        "decided_ms": START_MS + numbers * 1_000,
        "time_ms": START_MS + numbers * 1_000,
        "amount": random.integers(100, 50_000, rows),
        "unit": _words("customer", rows, 20_000, random),
        "outcome": random.choice(np.array([0, 1, 2, 3], np.int8), rows, p=[0.96, 0.02, 0.01, 0.01]),
        "score": random.integers(0, 1_000, rows).astype(np.int16),
        "probability": random.random(rows),
        "expected_loss": random.integers(0, 5_000, rows),
        "versions.rules": _words("rules", rows, 1, random),
        "versions.model": _words("model", rows, 1, random),
    }
    columns["own"] = np.minimum(columns["outcome"], 2).astype(np.int8)
    lengths = (columns["outcome"] > 0).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    names = _words("live", int(offsets[-1]), 12, random).cast(pa.string())
    columns["hits"] = pa.ListArray.from_arrays(pa.array(offsets), names)
    for name in schema.names:
        kind, _, word = name.partition(".")
        if kind == "feature":
            columns[name] = _feature(words[word].type, rows, random)
        elif kind == "entity":
            columns[name] = _words(word, rows, 20_000, random)
        elif kind == "field":
            columns[name] = _field(catalogue, word, columns["amount"], random)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _feature(kind: Type, rows: int, random: np.random.Generator) -> NDArray[np.float32]:
    if kind is Type.FLAG:
        values = (random.random(rows, np.float32) < 0.2).astype(np.float32)
    elif kind is Type.MONEY:
        values = (random.random(rows, np.float32) * 6_000).round()
    else:
        values = (random.random(rows, np.float32) * 6).round(1)
    values[random.random(rows, np.float32) < 0.1] = np.nan
    return values


def _field(catalogue: Catalogue, name: str, amount: NDArray[np.int64], random: np.random.Generator) -> Any:
    spec = catalogue.schema.by_name[name]
    if spec.kind == "amount":
        return amount
    if spec.kind == "number":
        return random.random(len(amount))
    choices = spec.values or ("DE", "FR", "GB")
    codes = random.integers(-1, len(choices), len(amount)).astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(choices))


def _words(prefix: str, rows: int, size: int, random: np.random.Generator) -> pa.DictionaryArray:
    codes = random.integers(0, size, rows).astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array([f"{prefix}{i}" for i in range(size)]))


def compare(rules: RuleSet, table: pa.Table, facts: list[Facts]) -> int:
    """Number of answers compared. Raises `FormsDiffer` at the first difference."""
    columns = StoredColumns(table, sources_of(rules))
    moments = columns.now_ms.tolist()
    scalar = [rules.evaluate(f, Circumstances(m)) for f, m in zip(facts, moments, strict=True)]
    live = [RuleTally(rule) for rule in rules.rules if rule.mode != "off"]
    for place, (tally, hits, able, counts) in enumerate(counted(rules, live, columns)):
        for row, results in enumerate(scalar):
            result = results[place]
            found = result.result == "hit", result.result != "not_evaluated"
            expected = bool(hits[row]), bool(able[row])
            counts_too = tally.rule.mode != "live" or result.counts == bool(counts[row])
            if found != expected or not counts_too:
                raise FormsDiffer(f"{tally.rule.id}: row {row}: {result} is not {expected}")
    return len(live) * len(scalar)


def scalar_ns(rules: RuleSet, facts: list[Facts]) -> float:
    """Median over rounds of the nanoseconds per rule, row building and results included."""
    circumstances = Circumstances(START_MS)
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        for fact in facts:
            rules.evaluate(fact, circumstances)
        rounds.append((time.perf_counter_ns() - started) / len(facts) / len(rules.rules))
    return statistics.median(rounds)
