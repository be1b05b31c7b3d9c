"""A history on disk as messages: Parquet in, three streams out, each in event-time order.

Columns are read by `features.column`, so that a replay sends what training reads. What can go wrong, and what
the caller does about it:

* `InvalidHistory`   the file and the schema do not fit: correct one of them, nothing else helps
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.column import Column, InvalidHistory, Words, read_column, read_ids, read_times
from features.measure import Scalar
from features.schema import Field, Schema
from stream.replay.item import Item, Kind

_BATCH_ROWS = 16_384
_EVENT_COLUMNS = ("event_id", "transaction_id", "time", "kind")


@dataclass(frozen=True, slots=True)
class History:
    """One history and the part of it to replay.

    `transactions`: a Parquet file, a row per transaction, columns as `schema` maps them. `events`: lifecycle
    events (event_id, transaction_id, time, kind, amount), or None. `label_delay_ms`: labels follow their
    transaction by this much; None: at the label's own time column or, where the schema has none, by the
    schema's delay. Transactions with `from_ms` <= time < `until_ms` are sent, with the events and labels of
    these that happen before `until_ms` (before the last transaction's time if there is no bound, so that a
    replay does not outlast its transactions).
    """

    transactions: Path
    schema: Schema
    events: Path | None = None
    label_delay_ms: int | None = None
    from_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Extent:
    """What a history holds inside its bounds: transactions, first and last event time, whether in order."""

    transactions: int
    first_ms: int
    last_ms: int
    ordered: bool


def open_history(path: Path) -> pq.ParquetFile:
    """The file. Raises `InvalidHistory`."""
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InvalidHistory(f"{path}: {error}") from None


def extent(history: History) -> Extent:
    """Reads the time column once. Raises `InvalidHistory`."""
    file = open_history(history.transactions)
    column = _time_column(history.schema)
    _require(file, history.transactions, [column])
    count, first, last, ordered, previous = 0, 2**62, -(2**62), True, -(2**62)
    for batch in file.iter_batches(_BATCH_ROWS * 4, columns=[column]):
        times = read_times(pa.table(batch), column)
        inside = times[_inside(history, times)]
        if len(inside):
            ordered &= bool(inside[0] >= previous) and bool((np.diff(inside) >= 0).all())
            previous = int(inside[-1])
            count += len(inside)
            first, last = min(first, int(inside.min())), max(last, int(inside.max()))
    if not count:
        raise InvalidHistory(f"{history.transactions}: no transaction between the bounds")
    return Extent(count, first, last, ordered)


def transactions(history: History, known: Extent, *, entities: bool = False) -> Iterator[Item]:
    """The transactions in event-time order, ties in file order. Streams row by row from a file that is in
    order; one that is not is loaded and sorted. `entities`: fill `Item.entities`."""
    schema = history.schema
    file = open_history(history.transactions)
    fields = [field for field in schema.fields if field.source in file.schema_arrow.names]
    missing = [field.source for field in schema.fields if field.required and field not in fields]
    id_column, time_column = schema.id_column or schema.id, _time_column(schema)
    _require(file, history.transactions, [id_column, time_column, *missing])
    columns = list(dict.fromkeys([id_column, time_column, *(field.source for field in fields)]))
    encode = msgspec.json.Encoder().encode
    names = (schema.id, schema.time, *(field.name for field in fields))
    primary = schema.entity(schema.primary).fields
    for table in _tables(file, columns, time_column, history, known):
        values = [read_ids(table, id_column).tolist(), read_times(table, time_column).tolist()]
        values += [plain(read_column(table, field, schema)) for field in fields]
        for row in zip(*values, strict=True):
            body = {name: value for name, value in zip(names, row, strict=True) if value is not None}
            key = _key([body.get(name) for name in primary])
            ids = _entities(schema, body) if entities else ()
            yield Item(row[1], "transaction", row[0], row[0], key, encode(body), ids)


def labels(history: History, known: Extent) -> Iterator[Item]:
    """The labels, and those taken back, in the order in which they become known. Holds all labels of the
    history (not its transactions) in memory."""
    schema, label = history.schema, history.schema.label
    if label is None:
        return
    file = open_history(history.transactions)
    own_time = label.time_column if history.label_delay_ms is None else None
    delay = schema.label_delay_ms if history.label_delay_ms is None else history.label_delay_ms
    id_column, time_column = schema.id_column or schema.id, _time_column(schema)
    primary = [schema.by_name[name] for name in schema.entity(schema.primary).fields]
    marks = [label.column, own_time, label.withdrawn_column if own_time else None]
    columns = [
        id_column,
        time_column,
        *(field.source for field in primary),
        *(mark for mark in marks if mark),
    ]
    _require(file, history.transactions, columns)
    until = known.last_ms + 1 if history.until_ms is None else history.until_ms
    found: list[tuple[int, bool, str, bytes]] = []
    for batch in file.iter_batches(_BATCH_ROWS * 4, columns=list(dict.fromkeys(columns))):
        table = pa.table(batch)
        fraud = np.array(plain(read_column(table, Field(label.column, "boolean"), schema)), object) == True  # noqa: E712
        if own_time:
            disputed = label.withdrawn_column is not None
            wanted = table[own_time].is_valid().to_numpy() & (disputed | fraud)
        else:
            wanted = fraud
        table = table.filter(pa.array(wanted & _inside(history, read_times(table, time_column))))
        times, ids = read_times(table, time_column), read_ids(table, id_column).tolist()
        keys = [
            _key(row)
            for row in zip(*(plain(read_column(table, field, schema)) for field in primary), strict=True)
        ]
        at = read_times(table, own_time) if own_time else times + delay
        at = np.maximum(at, times + 1)
        found += zip(at.tolist(), [False] * len(ids), ids, keys, strict=True)
        if own_time and label.withdrawn_column:
            back = read_times(table, label.withdrawn_column, absent=-1)
            rows = np.flatnonzero(back >= 0)
            later = np.maximum(back, at + 1)[rows].tolist()
            found += [(later[n], True, ids[row], keys[row]) for n, row in enumerate(rows.tolist())]
    found.sort(key=itemgetter(0, 1))
    for at_ms, withdrawn, transaction_id, key in found:
        if at_ms < until:
            yield label_item(at_ms, transaction_id, key, not withdrawn)


def label_item(time_ms: int, transaction_id: str, key: bytes, fraud: bool) -> Item:
    """The message of a label; its id follows from the transaction's, so a file loaded twice counts once."""
    label_id = f"{transaction_id}:{'fraud' if fraud else 'withdrawn'}"
    body = {"label_id": label_id, "transaction_id": transaction_id, "time": time_ms, "fraud": fraud}
    return Item(time_ms, "label", label_id, transaction_id, key, msgspec.json.encode(body))


def events(history: History, known: Extent) -> Iterator[Item]:
    """The lifecycle events in time order. A file without the transactions' time and primary entity, or out
    of order, is joined and sorted in memory."""
    if history.events is None:
        return
    schema = history.schema
    file = open_history(history.events)
    _require(file, history.events, _EVENT_COLUMNS)
    primary = [schema.by_name[name] for name in schema.entity(schema.primary).fields]
    own = {"transaction_time", *(field.source for field in primary)} <= set(file.schema_arrow.names)
    times = read_times(file.read(columns=["time"]), "time")
    if own and bool((np.diff(times) >= 0).all()):
        tables: Iterator[Any] = (pa.table(batch) for batch in file.iter_batches(_BATCH_ROWS))
    else:
        joined = file.read() if own else _join(history, file.read(), primary)
        tables = iter([joined.take(pa.array(np.argsort(times, kind="stable")))])
    until = known.last_ms + 1 if history.until_ms is None else history.until_ms
    encode = msgspec.json.Encoder().encode
    kinds, amount = (
        Field("kind", "category", required=True, values=schema.lifecycle),
        Field("amount", "amount"),
    )
    for table in tables:
        inside = _inside(history, read_times(table, "transaction_time"))
        table = table.filter(pa.array(inside & (read_times(table, "time") < until)))
        names = (read_ids(table, "event_id"), read_ids(table, "transaction_id"), read_times(table, "time"))
        columns = [column.tolist() for column in names] + [
            plain(read_column(table, kinds, schema)),
            plain(read_column(table, amount, schema, scale=1)),
        ]
        keys = zip(*(plain(read_column(table, field, schema)) for field in primary), strict=True)
        for event_id, transaction_id, time_ms, kind, paid, key in zip(*columns, keys, strict=True):
            body = {"event_id": event_id, "transaction_id": transaction_id, "time": time_ms, "kind": kind}
            if paid is not None:
                body["amount"] = paid
            yield Item(time_ms, "event", event_id, transaction_id, _key(key), encode(body))


def typed(item: Item) -> bytes:
    """The body as a topic carries it: labels and events say what they are."""
    kind: Kind = item.kind
    if kind == "transaction" or not item.body.startswith(b'{"'):
        return item.body
    return b'{"type":"' + kind.encode() + b'",' + item.body[1:]


def plain(column: Column) -> list[Scalar]:
    """The values of a column as a payload carries them, None where absent."""
    if isinstance(column, Words):
        words = (*column.words, None)  # the code of an absent one is -1
        return [words[code] for code in column.numbers.tolist()]
    values: list[Scalar] = column.numbers.tolist()
    if column.kind == "boolean":
        values = [bool(value) for value in values]
    for row in np.flatnonzero(column.absent).tolist():
        values[row] = None
    return values


def _tables(
    file: pq.ParquetFile, columns: list[str], time_column: str, history: History, known: Extent
) -> Iterator[Any]:
    if known.ordered:
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            table = pa.table(batch)
            inside = _inside(history, read_times(table, time_column))
            if inside.any():
                yield table if inside.all() else table.filter(pa.array(inside))
        return
    table = file.read(columns=columns)
    times = read_times(table, time_column)
    order = np.argsort(times, kind="stable")
    yield from (
        pa.table(part)
        for part in table.take(pa.array(order[_inside(history, times[order])])).to_batches(_BATCH_ROWS)
    )


def _inside(history: History, times: Any) -> Any:
    low = -(2**62) if history.from_ms is None else history.from_ms
    high = 2**62 if history.until_ms is None else history.until_ms
    return (times >= low) & (times < high)


def _time_column(schema: Schema) -> str:
    return schema.time_column or schema.time


def _key(ids: Sequence[Any]) -> bytes:
    return b"" if None in ids else "|".join(str(value) for value in ids).encode()


def _entities(schema: Schema, body: dict[str, Any]) -> tuple[str, ...]:
    found = []
    for entity in schema.entities:
        ids = [body.get(name) for name in entity.fields]
        if None not in ids:
            found.append(f"{entity.name}={'|'.join(str(value) for value in ids)}")
    return tuple(found)


def _join(history: History, table: pa.Table, primary: list[Field]) -> pa.Table:
    schema = history.schema
    id_column, time_column = schema.id_column or schema.id, _time_column(schema)
    columns = list(dict.fromkeys([id_column, time_column, *(field.source for field in primary)]))
    owners = open_history(history.transactions).read(columns=columns)
    ids = pa.array(read_ids(owners, id_column), pa.string())
    place = pc.index_in(pa.array(read_ids(table, "transaction_id"), pa.string()), value_set=ids)
    if place.null_count:
        raise InvalidHistory(f"{history.events}: {place.null_count} events of unknown transactions")
    owners = owners.take(place)
    for field in primary:
        table = table.append_column(field.source, owners[field.source])
    return table.append_column("transaction_time", pa.array(read_times(owners, time_column)))


def _require(file: pq.ParquetFile, path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        there = ", ".join(file.schema_arrow.names)
        raise InvalidHistory(f"{path}: no column {', '.join(map(repr, missing))}; there are {there}")
