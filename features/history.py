"""A Parquet history as columns: transactions in file order, their labels, the lifecycle events beside them.

What a row means is exactly what the door would make of the event that `History.payload` gives for it
(`features.event.parse_transaction`); a test holds the two together.

What can go wrong, and what the caller does about it:

* `InvalidHistory`   the file does not fit the schema; row and column are named: fix the file or the mapping
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.column import (
    Bools,
    Column,
    Ints,
    InvalidHistory,
    Numbers,
    Words,
    read_column,
    read_ids,
    read_times,
    refuse,
)
from features.measure import FRAUD, TRANSACTION, WITHDRAWN, Scalar
from features.rates import Rates, rates
from features.schema import Field, Schema

NEVER: Final = -1
"""The time of a label that never comes."""


@dataclass(frozen=True, slots=True, eq=False)
class Lifecycle:
    """Lifecycle events in file order: transaction's row, time (ms), kind (place in `Schema.lifecycle`),
    amount in minor units of the base currency (-1: none)."""

    ids: NDArray[np.object_]
    row: Ints
    time_ms: Ints
    kind: Ints
    amount: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """All events of a history under one numbering: transactions, then lifecycle events, reports of fraud,
    withdrawals, each in file order. `source[i]` is a place in `sources`; `amount` as in `Lifecycle`."""

    sources: tuple[str, ...]
    row: Ints
    time_ms: Ints
    source: Ints
    amount: Ints

    def __len__(self) -> int:
        return len(self.row)

    def by_time(self) -> Ints:
        """The order of arrival of a history without running numbers: event time, ties as numbered."""
        return np.argsort(self.time_ms, kind="stable")


@dataclass(frozen=True, eq=False)
class History:
    """Columnar history of one schema.

    `time_ms[n]`: event time. `fields`: the schema's fields as the decision would see them (amounts in minor
    units of the base currency). `original_amount`: in the event's own currency. `label[n]`: the truth.
    `label_time_ms[n]`, `withdrawn_ms[n]`: when a report of fraud arrives and is taken back, `NEVER` if not.

    With a label delay, or where the schema has no time column, every fraud is reported that much later. Else
    the column says when; where the schema also has a withdrawal column, every time is a report (also of a
    good transaction: an unfounded dispute), else only those of frauds are. A report comes at least a
    millisecond after its transaction, a withdrawal after its report.
    """

    schema: Schema
    ids: NDArray[np.object_]
    time_ms: Ints
    fields: Mapping[str, Column]
    original_amount: Ints | None
    label: Bools
    label_time_ms: Ints
    withdrawn_ms: Ints
    events: Lifecycle

    def __len__(self) -> int:
        return len(self.time_ms)

    @cached_property
    def timeline(self) -> Timeline:
        """All events that some entity observes."""
        reported = np.flatnonzero(self.label_time_ms != NEVER)
        withdrawn = np.flatnonzero(self.withdrawn_ms != NEVER)
        lifecycle = self.schema.lifecycle
        sources = (TRANSACTION, *lifecycle, FRAUD, WITHDRAWN)
        counts = (len(self), len(reported), len(withdrawn))
        codes = [
            np.full(c, k, np.int64)
            for c, k in zip(counts, (0, len(sources) - 2, len(sources) - 1), strict=True)
        ]
        late = counts[1] + counts[2]
        return Timeline(
            sources,
            np.concatenate([np.arange(len(self)), self.events.row, reported, withdrawn]),
            np.concatenate(
                [
                    self.time_ms,
                    self.events.time_ms,
                    self.label_time_ms[reported],
                    self.withdrawn_ms[withdrawn],
                ]
            ),
            np.concatenate([codes[0], self.events.kind + 1, codes[1], codes[2]]),
            np.concatenate([np.full(len(self), -1), self.events.amount, np.full(late, -1)]),
        )

    def entity(self, name: str) -> Ints:
        """A number per distinct entity of that kind, from 0 without gaps; -1 where it is absent. `[n]`."""
        parts = [self.fields[f].codes() for f in self.schema.entity(name).fields]
        codes = parts[0]
        for part in parts[1:]:
            joined = codes * (int(part.max(initial=0)) + 1) + part
            joined[(codes < 0) | (part < 0)] = -1
            codes = _dense(joined)
        return codes

    def values(self, row: int) -> dict[str, Scalar]:
        """The validated fields of one transaction, absent ones missing."""
        found = {name: column.value(row) for name, column in self.fields.items()}
        return {name: value for name, value in found.items() if value is not None}

    def payload(self, row: int) -> dict[str, Scalar]:
        """The event that the door would be sent for this row."""
        schema = self.schema
        body: dict[str, Scalar] = {schema.id: str(self.ids[row]), schema.time: int(self.time_ms[row])}
        body.update(self.values(row))
        if self.original_amount is not None and schema.amount is not None:
            body[schema.amount] = int(self.original_amount[row])
        return body


def load_history(
    path: str | Path,
    schema: Schema,
    label_delay_ms: int | None = None,
    since: int | None = None,
    until: int | None = None,
) -> History:
    """Read a Parquet file through the schema's mapping of columns, and `<name>.events.parquet` if it exists.

    `label_delay_ms`: frauds become known this much later, whatever the file says; default: as the file says,
    or by the schema's delay.
    `since`, `until`: keep transactions with event time in `[since, until)`, epoch ms.

    Raises `InvalidHistory`.
    """
    path = Path(path)
    table = _table(path, _columns(schema))
    time_ms = read_times(table, schema.time_column or schema.time)
    ids = read_ids(table, schema.id_column or schema.id)
    beside = path.with_suffix(".events.parquet")
    events = _events(beside, schema, ids) if schema.lifecycle and beside.exists() else _no_events()
    keep = np.ones(len(time_ms), np.bool_)
    if since is not None:
        keep &= time_ms >= since
    if until is not None:
        keep &= time_ms < until
    if not keep.all():
        table = table.filter(pa.array(keep))
        time_ms = time_ms[keep]
    fields = {spec.name: read_column(table, spec, schema) for spec in schema.fields}
    original = None
    if schema.amount and schema.currency:
        original, fields[schema.amount] = _convert(schema, rates(schema.base_currency), fields)
    label, label_time_ms, withdrawn_ms = _labels(table, schema, time_ms, label_delay_ms)
    return History(
        schema, ids[keep], time_ms, fields, original, label, label_time_ms, withdrawn_ms, _kept(events, keep)
    )


def _columns(schema: Schema) -> list[str]:
    label = schema.label
    wanted = [
        schema.id_column or schema.id,
        schema.time_column or schema.time,
        *(f.source for f in schema.fields),
    ]
    if label is not None:
        wanted += [c for c in (label.column, label.time_column, label.withdrawn_column) if c is not None]
    return wanted


def _table(path: Path, wanted: Sequence[str]) -> Any:
    if not path.is_file():
        raise InvalidHistory(f"{path}: there is no such file")
    try:
        present = set(pq.read_schema(path).names)
        return pq.read_table(path, columns=[c for c in dict.fromkeys(wanted) if c in present])
    except pa.ArrowInvalid as error:
        raise InvalidHistory(f"{path}: not a Parquet file: {error}") from error


def _convert(schema: Schema, table: Rates, fields: Mapping[str, Column]) -> tuple[Ints, Numbers]:
    """The amounts as they are, and in the base currency, rounded half to even."""
    amounts, currencies = fields[schema.amount or ""], fields[schema.currency or ""]
    assert isinstance(amounts, Numbers)
    assert isinstance(currencies, Words)
    original = amounts.numbers.astype(np.int64)
    base = original.copy()
    for code, currency in enumerate(currencies.words):
        at = np.flatnonzero((currencies.numbers == code) & ~amounts.absent)
        factor = table.factors.get(currency)
        if factor is None and len(at):
            raise InvalidHistory(
                f"row {at[0]}, column {schema.by_name[schema.currency or ''].source}: no rate"
            )
        if factor is None or factor == 1:
            continue
        if schema.amount_max * factor.numerator >= 2**62:
            base[at] = [round(int(a) * factor) for a in original[at]]
            continue
        whole, rest = np.divmod(original[at] * factor.numerator, factor.denominator)
        twice = 2 * rest
        up = (twice > factor.denominator) | ((twice == factor.denominator) & (whole % 2 == 1))
        base[at] = whole + up
    source = schema.by_name[schema.amount or ""].source
    without = np.flatnonzero((currencies.numbers < 0) & ~amounts.absent)
    if len(without):
        raise InvalidHistory(f"row {without[0]}, column {source}: an amount needs its currency")
    above = np.flatnonzero(base > schema.amount_max)
    if len(above):
        raise InvalidHistory(f"row {above[0]}, column {source}: above {schema.amount_max} in {table.base}")
    return original, Numbers(base, amounts.absent, "amount")


def _labels(table: Any, schema: Schema, time_ms: Ints, delay_ms: int | None) -> tuple[Bools, Ints, Ints]:
    """The truth, when it is reported, and when a report is taken back."""
    never = np.full(len(time_ms), NEVER, np.int64)
    label = schema.label
    if label is None or label.column not in table.column_names:
        return np.zeros(len(time_ms), np.bool_), never, never
    truth = read_column(table, Field(label.column, "boolean"), schema)
    assert isinstance(truth, Numbers)
    fraud = truth.numbers == 1
    if delay_ms is not None or label.time_column is None or label.time_column not in table.column_names:
        after_ms = schema.label_delay_ms if delay_ms is None else delay_ms
        return fraud, np.where(fraud, time_ms + max(after_ms, 1), NEVER), never
    reported = read_times(table, label.time_column, absent=NEVER)
    known = (reported != NEVER) & (fraud | (label.withdrawn_column is not None))
    reported = np.where(known, np.maximum(reported, time_ms + 1), NEVER)
    if label.withdrawn_column is None or label.withdrawn_column not in table.column_names:
        return fraud, reported, never
    withdrawn = read_times(table, label.withdrawn_column, absent=NEVER)
    withdrawn = np.where(known & (withdrawn != NEVER), np.maximum(withdrawn, reported + 1), NEVER)
    return fraud, reported, withdrawn


def _no_events() -> Lifecycle:
    none = np.empty(0, np.int64)
    return Lifecycle(np.empty(0, np.object_), none, none, none, none)


def _events(path: Path, schema: Schema, ids: NDArray[np.object_]) -> Lifecycle:
    """The lifecycle events; `row` counts all transactions of the file. Raises `InvalidHistory`."""
    table = _table(path, ["event_id", "transaction_id", "time", "kind", "amount"])
    for name in ("event_id", "transaction_id", "time", "kind"):
        if name not in table.column_names:
            raise InvalidHistory(f"{path}: there is no column {name}")
    row = pc.index_in(table["transaction_id"].combine_chunks().cast(pa.string()), pa.array(ids, pa.string()))
    row = row.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    kind = read_column(table, Field("kind", "category", required=True, values=schema.lifecycle), schema)
    amount = read_column(table, Field("amount", "amount"), schema, scale=1)
    assert isinstance(kind, Words)
    assert isinstance(amount, Numbers)
    number = np.array([schema.lifecycle.index(w) for w in kind.words], np.int64)
    refuse(row < 0, "transaction_id", f"{path.name}: there is no such transaction")
    return Lifecycle(
        read_ids(table, "event_id"),
        row,
        read_times(table, "time"),
        number[kind.numbers] if len(number) else np.empty(0, np.int64),
        np.where(amount.absent, -1, amount.numbers).astype(np.int64),
    )


def _kept(events: Lifecycle, keep: Bools) -> Lifecycle:
    """The events of the transactions that are kept, with the rows that these have then."""
    if keep.all():
        return events
    wanted = keep[events.row]
    row = (np.cumsum(keep) - 1)[events.row[wanted]]
    return Lifecycle(
        events.ids[wanted], row, events.time_ms[wanted], events.kind[wanted], events.amount[wanted]
    )


def _dense(codes: Ints) -> Ints:
    """The same partition with numbers from 0 without gaps; negative ones become -1."""
    encoded = pa.array(codes, mask=codes < 0).dictionary_encode()
    found: Ints = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return found
