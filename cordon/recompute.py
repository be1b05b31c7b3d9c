"""What the vectors of a run should have been: the oracle over the replay's source, in the log's order.

The log contributes nothing but the order in which each entity's events arrived (running numbers, where
the fast lane was on; `phase`, where a run was made in parts) and the vectors to compare. Everything else
comes from the source file.
"""

import multiprocessing
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import Catalogue
from features.event import LifecycleEvent, Transaction
from features.measure import FRAUD, TRANSACTION, WITHDRAWN
from features.oracle import Happening, Oracle
from features.pseudonym import Pseudonyms

CHUNK = 2_000


@dataclass(frozen=True, slots=True)
class Source:
    """A replay's source: transactions in file order, the time of arrival of each (transaction, fraud),
    lifecycle events by id."""

    transactions: Mapping[str, Transaction]
    labels: Mapping[tuple[str, bool], int]
    events: Mapping[str, LifecycleEvent]


@dataclass(slots=True)
class Log:
    """What the topics held, decoded, in offset order per partition."""

    decisions: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Recomputed:
    """`ids`: compared decisions. `expected`, `actual`: float32 [ids, features], NaN where absent.

    `missing`: transactions of the source without a decision. `surplus`: records that the source does not
    explain. `apart`: decisions that were not observed or taken over, which are reported, not compared.
    """

    ids: list[str]
    expected: NDArray[np.float32]
    actual: NDArray[np.float32]
    missing: list[str]
    surplus: list[str]
    apart: list[str]


def recompute(
    catalogue: Catalogue,
    source: Source,
    log: Log,
    *,
    pseudonyms: Pseudonyms,
    compare: set[str] | None = None,
    processes: int = 2,
) -> Recomputed:
    """Compare every decision of `compare` (default: all) with the oracle."""
    timeline = _Timeline(catalogue, source, pseudonyms)
    surplus = timeline.load(log)
    records = {record["id"]: record for record in log.decisions if record["type"] == "decision"}
    wanted = [i for i in source.transactions if compare is None or i in compare]
    apart = [i for i in wanted if i in records and records[i]["claim"] != "new"]
    ids = [i for i in wanted if i in records and records[i]["claim"] == "new"]
    expected = _vectors(timeline, ids, processes)
    actual = np.array([_floats(records[i]["features"]) for i in ids], dtype=np.float32)
    missing = [i for i in wanted if i not in records]
    return Recomputed(ids, expected, actual.reshape(expected.shape), missing, surplus, apart)


class _Timeline:
    """Each entity's events in order of arrival, and where each transaction stands among them."""

    def __init__(self, catalogue: Catalogue, source: Source, pseudonyms: Pseudonyms) -> None:
        self.catalogue = catalogue
        self.source = source
        self.oracle = Oracle(catalogue.schema, pseudonyms.mark)
        self.before: dict[str, dict[str, int]] = {}

    def load(self, log: Log) -> list[str]:
        """Fill the histories; the ids of records that the source does not explain."""
        arrivals: dict[tuple[str, Hashable], list[tuple[Any, int, str | None, Happening]]] = {}
        surplus = []
        for record, happening, transaction_id, rank in self._happenings(log):
            if happening is None:
                surplus.append(f"{record['type']} {record['id']}")
                continue
            keys = self.oracle.keys(
                self.source.transactions[record.get("transaction_id", record["id"])].values
            )
            for entity, key in keys.items():
                if entity not in self.catalogue.layouts:
                    continue
                order = record["order"].get(entity)
                place = (record.get("phase", 0), *(order or ("", happening.time_ms)))
                arrivals.setdefault((entity, key), []).append((place, rank, transaction_id, happening))
        for (entity, key), found in arrivals.items():
            found.sort(key=lambda item: item[:2])
            self.oracle.histories[entity, key] = [happening for _, _, _, happening in found]
            for index, (_, _, transaction_id, _) in enumerate(found):
                if transaction_id is not None:
                    self.before.setdefault(transaction_id, {})[entity] = index
        return surplus

    def _happenings(self, log: Log) -> Iterable[tuple[dict[str, Any], Happening | None, str | None, int]]:
        """Records with their meaning in the source. `rank` orders ties: file order, then the rest."""
        source = self.source
        place = {transaction_id: rank for rank, transaction_id in enumerate(source.transactions)}
        for record in log.decisions:
            found = source.transactions.get(record["id"])
            happening = Happening(TRANSACTION, found.time_ms, found.values) if found else None
            yield record, happening, record["id"], place.get(record["id"], 0)
        for record in log.labels:
            owner = source.transactions.get(record["transaction_id"])
            time_ms = source.labels.get((record["transaction_id"], record["fraud"]))
            kind = FRAUD if record["fraud"] else WITHDRAWN
            known = owner is not None and time_ms is not None
            happening = Happening(kind, time_ms, owner.values) if known and owner and time_ms else None
            yield record, happening, None, len(place) + 1
        for record in log.events:
            event = source.events.get(record["id"])
            owner = source.transactions.get(event.transaction_id) if event else None
            yield record, self._lifecycle(event, owner), None, len(place)

    def _lifecycle(self, event: LifecycleEvent | None, owner: Transaction | None) -> Happening | None:
        if event is None or owner is None:
            return None
        values = {**owner.values, self.catalogue.schema.amount or "amount": event.amount}
        return Happening(event.kind, event.time_ms, values)

    def vectors(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Expected vectors, float32 [ids, features]."""
        rows = []
        for transaction_id in ids:
            transaction = self.source.transactions[transaction_id]
            keys = self.oracle.keys(transaction.values)
            keys = {entity: key for entity, key in keys.items() if entity in self.catalogue.layouts}
            now = Happening(TRANSACTION, transaction.time_ms, transaction.values)
            row = self.oracle.vector(self.catalogue.features, now, keys, self.before[transaction_id])
            rows.append(_floats(row))
        return np.array(rows, dtype=np.float32).reshape(len(ids), len(self.catalogue.features))


_shared: _Timeline | None = None


def _chunk(ids: Sequence[str]) -> NDArray[np.float32]:
    assert _shared is not None
    return _shared.vectors(ids)


def _vectors(timeline: _Timeline, ids: Sequence[str], processes: int) -> NDArray[np.float32]:
    """The timeline is inherited by forked processes, never copied through a pipe."""
    global _shared
    if len(ids) <= CHUNK or processes == 1:
        return timeline.vectors(ids)
    _shared = timeline
    try:
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            parts = pool.map(_chunk, [ids[at : at + CHUNK] for at in range(0, len(ids), CHUNK)])
    finally:
        _shared = None
    return np.concatenate(parts)


def _floats(row: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in row]
