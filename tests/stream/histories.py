"""A small schema of its own, and histories of it, for the tests of the replay."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from features.schema import Entity, Field, Label, Schema
from stream.replay.history import History

PARCELS = Schema(
    name="parcels",
    fields=(
        Field("amount", "amount", required=True, column="PRICE"),
        Field("sender", "text", required=True, column="FROM"),
        Field("depot", "text", column="AT"),
        Field("speed", "category", values=("slow", "fast")),
        Field("weight", "number"),
        Field("insured", "boolean", column="INSURED"),
    ),
    entities=(
        Entity("sender", ("sender",)),
        Entity("depot", ("depot",)),
        Entity("lane", ("sender", "depot")),
    ),
    primary="sender",
    subject="sender",
    id_column="PARCEL",
    time_column="POSTED",
    amount_scale=100,
    lifecycle=("returned",),
    label=Label("LOST", "LOST_AT", "FOUND_AT"),
)
START_MS = 1_700_000_000_000


def parcel(number: int, at_ms: int, sender: int = 1, depot: int | None = 1, **more):
    """One row, times relative to START_MS."""
    row = {
        "PARCEL": number,
        "POSTED": START_MS + at_ms,
        "PRICE": 12.34,
        "FROM": sender,
        "AT": None if depot is None else f"d{depot}",
        "speed": "slow",
        "weight": 1.5,
        "INSURED": 1,
        "LOST": False,
        "LOST_AT": None,
        "FOUND_AT": None,
    }
    return row | more


def write_parcels(path: Path, rows: list[dict], *, row_group: int = 4) -> Path:
    """A history file in which times are timestamps and ids integers."""
    table = pa.Table.from_pylist(rows)
    for name in ("POSTED", "LOST_AT", "FOUND_AT"):
        table = table.set_column(
            table.column_names.index(name), name, table[name].cast(pa.int64()).cast(pa.timestamp("ms"))
        )
    pq.write_table(table, path, row_group_size=row_group)
    return path


def write_returns(path: Path, rows: list[tuple[str, int, int]]) -> Path:
    """Lifecycle events (id, parcel, time relative to START_MS), without the parcels' sender and time."""
    columns = {
        "event_id": [event for event, _, _ in rows],
        "transaction_id": [str(number) for _, number, _ in rows],
        "time": [START_MS + at for _, _, at in rows],
        "kind": ["returned"] * len(rows),
    }
    pq.write_table(pa.table(columns), path)
    return path


def parcels(directory: Path, count: int, *, senders: int = 7) -> History:
    """A parcel a second; every fifth is lost and reported at once, every third comes back."""
    rows = [
        parcel(n, n * 1_000, sender=n % senders, LOST=n % 5 == 0, LOST_AT=START_MS + n * 1_000 + 1)
        for n in range(count)
    ]
    returns = [(f"e{n}", n, n * 1_000 + 2) for n in range(0, count, 3)]
    return History(
        write_parcels(directory / "parcels.parquet", rows, row_group=5_000),
        PARCELS,
        write_returns(directory / "returns.parquet", returns),
    )
