"""A draft rule set over stored decisions: what it would have caught, whom it would have hit, what it costs.

Truth comes from labels, joined by transaction id (the newest label of a transaction counts):

    fraud      labelled so
    good       labelled as no fraud; or not labelled, old enough, and not declined then
    open       not labelled and younger than `mature_ms` at the end of the data
    censored   not labelled because it was declined then: nobody will ever know

The outcome under the draft is decided as `decide` does: an `allow` rule, else the most severe of the draft's
live rules and of what was said then by model and policies. Shadow rules are reported as if they were live,
but change no outcome. Snoozes and tripped breakers of that time play no part.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from api.outcome import Outcome
from api.rules.columns import Flags, evaluate
from api.rules.rule import Rule, RuleSet, share
from api.stored import FINGERPRINT, StoredColumns, column_of, facts_of, sources_of, texts_of
from api.tally import CENSORED, FRAUD, GOOD, OPEN, Backtest, RuleTally

ROWS: Final = 65_536
"""Rows at a time: what they need stays in the processor's cache."""
SAMPLE: Final = 500
"""Decisions on which each closure is timed."""
ROUNDS: Final = 5
_ALWAYS: Final = ("id", "decided_ms", "time_ms", "amount", "outcome", "own", "hits")


class NothingStored(Exception):
    """There are no decisions of this vector in the directory: export some, or name another one."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Newest label per transaction: ids of frauds, ids of what is known to be none."""

    fraud: pa.StringArray
    genuine: pa.StringArray

    @classmethod
    def read(cls, directory: Path) -> "Labels":
        """Labels below a dataset's directory (`labels/*.parquet`: transaction_id, time_ms, fraud)."""
        files = sorted((directory / "labels").glob("*.parquet"))
        newest: dict[str, tuple[int, bool]] = {}
        for file in files:
            table = pq.read_table(file, columns=["transaction_id", "time_ms", "fraud"])
            for id_, time_ms, fraud in zip(*(table[c].to_pylist() for c in table.column_names), strict=True):
                if id_ not in newest or newest[id_][0] <= time_ms:
                    newest[id_] = time_ms, fraud
        return cls(
            pa.array([i for i, (_, fraud) in newest.items() if fraud], pa.string()),
            pa.array([i for i, (_, fraud) in newest.items() if not fraud], pa.string()),
        )


def backtest(
    draft: RuleSet, directory: Path, fingerprint: str, *, mature_ms: int, timer: Callable[[], int]
) -> Backtest:
    """Run a draft over the decisions in `directory`. `timer`: monotonic nanoseconds.

    Raises `NothingStored`.
    """
    files = sorted((directory / "decisions").glob("*.parquet"))
    usable = [f for f in files if _fingerprint(f) == fingerprint]
    found = Backtest(draft.version, [RuleTally(rule) for rule in draft.rules if rule.mode != "off"])
    found.left_out = sum(pq.read_metadata(f).num_rows for f in set(files) - set(usable))
    spans = [span for f in usable if (span := _span(f)) is not None]
    if not spans:
        raise NothingStored(f"{directory}: no decisions on vector {fingerprint}")
    found.from_ms, found.to_ms = min(s[0] for s in spans), max(s[1] for s in spans)
    labels = Labels.read(directory)
    for table in tables(usable, draft):
        if found.decisions == 0:
            _time(found, draft, table.slice(0, SAMPLE), timer)
        _add(found, draft, table, labels, found.to_ms - mature_ms)
    return found


def tables(files: Iterable[Path], rules: RuleSet) -> Iterator[pa.Table]:
    """Stored decisions in pieces, with the columns that the rules need."""
    needed = [*_ALWAYS, *(column_of(name, source) for name, (_, source) in rules.words.items())]
    if any(rule.rollout_percent < 100 for rule in rules.rules):
        needed.append("unit")
    for path in files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS, columns=list(dict.fromkeys(needed)), use_threads=True):
                yield pa.Table.from_batches([batch])


def _time(found: Backtest, draft: RuleSet, table: pa.Table, timer: Callable[[], int]) -> None:
    """What each rule costs as it is served, in microseconds: the fastest of some rounds over a sample."""
    rows = [draft.row(facts, 0) for facts in facts_of(table, draft)]
    conditions = {rule.id: c for rule, c in zip(draft.rules, draft.conditions, strict=True)}
    for tally in found.rules:
        condition, spent = conditions[tally.rule.id], []
        for _ in range(ROUNDS if rows else 0):
            started = timer()
            for row in rows:
                condition(row)
            spent.append((timer() - started) / len(rows) / 1_000)
        tally.cost_us = min(spent, default=0.0)


def _fingerprint(path: Path) -> str:
    known: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    return known.get(FINGERPRINT, b"").decode()


def _span(path: Path) -> tuple[int, int] | None:
    """First and last time of a file, from its statistics."""
    metadata = pq.read_metadata(path)
    place = metadata.schema.names.index("time_ms")
    groups = [metadata.row_group(i).column(place).statistics for i in range(metadata.num_row_groups)]
    known = [g for g in groups if g is not None and g.has_min_max]
    return (min(g.min for g in known), max(g.max for g in known)) if known else None


def _add(found: Backtest, draft: RuleSet, table: pa.Table, labels: Labels, mature_before_ms: int) -> None:
    columns = StoredColumns(table, sources_of(draft))
    amount = columns.whole("amount")
    before = columns.whole("outcome")
    truth = _truth(table["id"], before, columns.whole("time_ms"), labels, mature_before_ms)
    beside = _Beside(table["hits"])
    severity, allowed = columns.whole("own").copy(), np.zeros(columns.rows, np.bool_)
    for tally, hits, able, counts in counted(draft, found.rules, columns):
        rule = tally.rule
        tally.not_evaluated += int(columns.rows - np.count_nonzero(able))
        tally.held += int(np.count_nonzero(hits) - np.count_nonzero(counts))
        tally.hits.add(counts, truth, amount)
        milder = before > rule.outcome if rule.action == "allow" else before < rule.outcome
        tally.new.add(counts & milder, truth, amount)
        tally.beside.update(beside.of(counts))
        if rule.mode != "live":
            continue
        if rule.action == "allow":
            allowed |= counts
        else:
            np.maximum(severity, np.int8(rule.outcome), out=severity, where=counts)
    after = np.where(allowed, np.int8(Outcome.APPROVE), severity)
    found.decisions += columns.rows
    found.changed += int(np.count_nonzero(after != before))
    for outcome in Outcome:
        found.before[outcome].add(before == outcome, truth, amount)
        found.after[outcome].add(after == outcome, truth, amount)


def counted(
    draft: RuleSet, tallies: Sequence[RuleTally], columns: StoredColumns
) -> Iterator[tuple[RuleTally, Flags, Flags, Flags]]:
    """Per rule: where it hits, could be evaluated, and would count if it were live."""
    checked = {rule.id: c for rule, c in zip(draft.rules, draft.checked, strict=True)}
    amount, now_ms = columns.whole("amount"), columns.now_ms
    for tally in tallies:
        rule = tally.rule
        hits, able = evaluate(checked[rule.id], draft.lists, columns)
        if rule.expires_ms is not None:
            current = now_ms < rule.expires_ms
            hits, able = hits & current, able & current
        counts = hits if rule.amount_max is None else hits & (amount <= rule.amount_max)
        if rule.rollout_percent < 100:
            counts = counts & _rolled_out(rule, columns, counts)
        yield tally, hits, able, counts


def _rolled_out(rule: Rule, columns: StoredColumns, wanted: Flags) -> Flags:
    """Where the rollout reaches, asked only where it is `wanted`."""
    units = columns.units()
    inside = np.zeros(len(units.words), np.bool_)
    for code in np.unique(units.codes[wanted]).tolist():
        inside[code] = share(rule.id, units.words[code].as_py()) < rule.rollout_percent
    return inside[units.codes] if len(inside) else np.zeros(columns.rows, np.bool_)


def _truth(
    ids: pa.ChunkedArray,
    outcome: NDArray[np.int64],
    time_ms: NDArray[np.int64],
    labels: Labels,
    mature_before_ms: int,
) -> NDArray[np.int8]:
    truth = np.where(time_ms > mature_before_ms, np.int8(OPEN), np.int8(GOOD))
    truth[outcome == Outcome.DECLINE] = CENSORED
    for known, kind in ((labels.genuine, GOOD), (labels.fraud, FRAUD)):
        if len(known):
            truth[pc.is_in(ids, known).to_numpy()] = kind
    return truth


class _Beside:
    """Which rules counted then, as pairs of row and rule."""

    def __init__(self, hits: pa.ChunkedArray) -> None:
        whole = hits.combine_chunks()
        self._rules = texts_of(pa.chunked_array([whole.flatten().dictionary_encode()]))
        lengths = pc.fill_null(pc.list_value_length(whole), 0).to_numpy(zero_copy_only=False)
        self._rows = np.repeat(np.arange(len(lengths)), lengths)

    def of(self, rows: Flags) -> Counter[str]:
        """How often each rule counted on `rows`."""
        codes = self._rules.codes[rows[self._rows]]
        counts = np.bincount(codes, minlength=len(self._rules.words))
        words = self._rules.words.to_pylist()
        return Counter({words[i]: int(counts[i]) for i in np.flatnonzero(counts)})
