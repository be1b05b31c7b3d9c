"""A history on disk as messages: Parquet in, three streams out, each in event-time order.

What can go wrong, and what the caller does about it:

* `HistoryError`   the file and the schema do not fit: correct one of them, nothing else helps
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.schema import Field, Schema
from stream.replay.item import Item, Kind

_BATCH_ROWS = 16_384
_EVENT_COLUMNS = ("event_id", "transaction_id", "time", "kind")


class HistoryError(ValueError):
    """The file lacks what the schema needs, or holds what cannot be read as it."""


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
    """The file. Raises `HistoryError`."""
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise HistoryError(f"{path}: {error}") from None


def extent(history: History) -> Extent:
    """Reads the time column once. Raises `HistoryError`."""
    file = open_history(history.transactions)
    column = _time_column(history.schema)
    _require(file, history.transactions, [column])
    count, first, last, ordered, previous = 0, 2**62, -(2**62), True, -(2**62)
    for batch in file.iter_batches(_BATCH_ROWS * 4, columns=[column]):
        times = epoch_ms(batch.column(0)).to_numpy(zero_copy_only=False)
        inside = times[_inside(history, times)]
        if len(inside):
            ordered &= bool(inside[0] >= previous) and bool((np.diff(inside) >= 0).all())
            previous = int(inside[-1])
            count += len(inside)
            first, last = min(first, int(inside.min())), max(last, int(inside.max()))
    if not count:
        raise HistoryError(f"{history.transactions}: no transaction between the bounds")
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
    for batch in _batches(file, columns, time_column, history, known):
        values = [text(batch.column(id_column)).to_pylist(), epoch_ms(batch.column(time_column)).to_pylist()]
        values += [payload_column(field, schema, batch.column(field.source)) for field in fields]
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
    primary = [schema.by_name[name].source for name in schema.entity(schema.primary).fields]
    own_time = label.time_column if history.label_delay_ms is None else None
    delay = schema.label_delay_ms if history.label_delay_ms is None else history.label_delay_ms
    id_column, time_column = schema.id_column or schema.id, _time_column(schema)
    marks = [own_time, label.withdrawn_column] if own_time else [label.column]
    columns = [id_column, time_column, *primary, *(mark for mark in marks if mark)]
    _require(file, history.transactions, columns)
    until = known.last_ms + 1 if history.until_ms is None else history.until_ms
    known_labels: list[tuple[int, str, bytes, bool]] = []
    for batch in file.iter_batches(_BATCH_ROWS * 4, columns=list(dict.fromkeys(columns))):
        table = pa.table(batch)
        wanted = table[own_time].is_valid() if own_time else pc.cast(table[label.column], pa.bool_())
        table = table.filter(pc.fill_null(wanted, False))
        times = epoch_ms(table[time_column]).to_numpy()
        table = table.filter(pa.array(_inside(history, times)))
        times = epoch_ms(table[time_column]).to_numpy()
        ids = text(table[id_column]).to_pylist()
        keys = [_key(row) for row in zip(*(text(table[name]).to_pylist() for name in primary), strict=True)]
        at = epoch_ms(table[own_time]).to_numpy() if own_time else times + delay
        at = np.maximum(at, times + 1).tolist()
        known_labels += [(at[i], ids[i], keys[i], True) for i in range(len(ids))]
        if own_time and label.withdrawn_column:
            for i, back in enumerate(epoch_ms(table[label.withdrawn_column]).to_pylist()):
                if back is not None:
                    known_labels.append((max(back, at[i] + 1), ids[i], keys[i], False))
    known_labels.sort(key=lambda entry: entry[0])
    for at_ms, transaction_id, key, fraud in known_labels:
        if at_ms < until:
            yield label_item(at_ms, transaction_id, key, fraud)


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
    primary = [schema.by_name[name].source for name in schema.entity(schema.primary).fields]
    own = {"transaction_time", *primary} <= set(file.schema_arrow.names)
    times = epoch_ms(file.read(columns=["time"])["time"]).to_numpy()
    if own and bool((np.diff(times) >= 0).all()):
        batches: Iterator[Any] = (pa.table(batch) for batch in file.iter_batches(_BATCH_ROWS))
    else:
        joined = file.read() if own else _join(history, file.read(), primary)
        batches = iter([joined.take(pa.array(np.argsort(times, kind="stable")))])
    until = known.last_ms + 1 if history.until_ms is None else history.until_ms
    encode = msgspec.json.Encoder().encode
    for table in batches:
        inside = _inside(history, epoch_ms(table["transaction_time"]).to_numpy())
        table = table.filter(pa.array(inside & (epoch_ms(table["time"]).to_numpy() < until)))
        amounts = table["amount"].to_pylist() if "amount" in table.column_names else [None] * len(table)
        keys = zip(*(text(table[name]).to_pylist() for name in primary), strict=True)
        columns = [
            text(table["event_id"]),
            text(table["transaction_id"]),
            epoch_ms(table["time"]),
            table["kind"],
        ]
        rows = zip(*(column.to_pylist() for column in columns), amounts, keys, strict=True)
        for event_id, transaction_id, time_ms, kind, amount, key in rows:
            body = {"event_id": event_id, "transaction_id": transaction_id, "time": time_ms, "kind": kind}
            if amount is not None:
                body["amount"] = int(amount)
            yield Item(time_ms, "event", event_id, transaction_id, _key(key), encode(body))


def typed(item: Item) -> bytes:
    """The body as a topic carries it: labels and events say what they are."""
    kind: Kind = item.kind
    if kind == "transaction" or not item.body.startswith(b'{"'):
        return item.body
    return b'{"type":"' + kind.encode() + b'",' + item.body[1:]


def epoch_ms(column: Any) -> Any:
    """A column of times as int64 epoch milliseconds: timestamps (UTC where they name no zone) or integers
    that are milliseconds already. Raises `HistoryError`."""
    if pa.types.is_timestamp(column.type):
        return pc.cast(pc.cast(column, pa.timestamp("ms", column.type.tz), safe=False), pa.int64())
    if pa.types.is_date(column.type):
        return pc.cast(pc.cast(column, pa.timestamp("ms")), pa.int64())
    if pa.types.is_integer(column.type):
        return pc.cast(column, pa.int64())
    raise HistoryError(f"times are {column.type}; write timestamps or epoch milliseconds")


def text(column: Any) -> Any:
    """A column of ids as strings. Raises `HistoryError` for floating point numbers."""
    if pa.types.is_floating(column.type):
        raise HistoryError("ids are floating point numbers; write integers or strings")
    return pc.cast(column, pa.string())


def payload_column(field: Field, schema: Schema, column: Any) -> Sequence[Any]:
    """The values of a field as a payload carries them; absent ones None.

    Amounts are multiplied by the schema's scale and rounded half to even; NaN is absent.
    """
    if field.kind in ("text", "category"):
        return list(text(column).to_pylist())
    if field.kind == "boolean":
        return list(pc.cast(column, pa.bool_()).to_pylist())
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, None)
    if field.kind == "number":
        return list(pc.cast(column, pa.float64()).to_pylist())
    if field.kind == "amount" and (schema.amount_scale != 1 or not pa.types.is_integer(column.type)):
        column = pc.round(
            pc.multiply(pc.cast(column, pa.float64()), float(schema.amount_scale)), round_mode="half_to_even"
        )
    return list(pc.cast(column, pa.int64()).to_pylist())


def _batches(
    file: pq.ParquetFile, columns: list[str], time_column: str, history: History, known: Extent
) -> Iterator[Any]:
    if known.ordered:
        for batch in file.iter_batches(_BATCH_ROWS, columns=columns):
            inside = _inside(history, epoch_ms(batch.column(time_column)).to_numpy(zero_copy_only=False))
            yield batch if inside.all() else batch.filter(pa.array(inside))
        return
    table = file.read(columns=columns)
    times = epoch_ms(table[time_column]).to_numpy()
    order = np.argsort(times, kind="stable")
    yield from table.take(pa.array(order[_inside(history, times[order])])).to_batches(_BATCH_ROWS)


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


def _join(history: History, table: pa.Table, primary: list[str]) -> pa.Table:
    id_column, time_column = history.schema.id_column or history.schema.id, _time_column(history.schema)
    owners = open_history(history.transactions).read(columns=[id_column, time_column, *primary])
    place = pc.index_in(text(table["transaction_id"]), value_set=text(owners[id_column]).combine_chunks())
    if place.null_count:
        raise HistoryError(f"{history.events}: {place.null_count} events of unknown transactions")
    owners = owners.take(place)
    for name in primary:
        table = table.append_column(name, owners[name])
    return table.append_column("transaction_time", epoch_ms(owners[time_column]))


def _require(file: pq.ParquetFile, path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        there = ", ".join(file.schema_arrow.names)
        raise HistoryError(f"{path}: no column {', '.join(map(repr, missing))}; there are {there}")
