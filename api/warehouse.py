"""Journals as Parquet: decisions and labels in columns, for backtests. It can be deleted and made again.

    <directory>/decisions/<journal>-<first sequence>.parquet     see stored.py
    <directory>/labels/<journal>-<first sequence>.parquet        id, transaction_id, time_ms, fraud
    <directory>/positions/<journal>.json                         where the next piece begins

A piece is written whole, then its position; one that is written again, after a crash or because positions
were lost, takes the place of all that it holds.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from api.journal_reader import JournalReader, Position
from api.record import decode_json, unpack
from api.segment import journal_name, segments_in
from api.stored import table_of
from features.catalogue import Catalogue

PIECE: Final = 50_000
_LABELS: Final = pa.schema(
    [("id", pa.string()), ("transaction_id", pa.string()), ("time_ms", pa.int64()), ("fraud", pa.bool_())]
)


@dataclass(frozen=True, slots=True)
class Projected:
    """What was added."""

    journals: int
    decisions: int
    labels: int


def project(journals: Path, directory: Path, catalogue: Catalogue, *, piece: int = PIECE) -> Projected:
    """Add what is new in the journals below a directory. Raises `Damage`, `OSError`."""
    decisions = labels = 0
    found = [p for p in sorted(journals.iterdir()) if p.is_dir() and segments_in(p)]
    for journal in found:
        added = _follow(journal, directory, catalogue, piece)
        decisions += added[0]
        labels += added[1]
    return Projected(len(found), decisions, labels)


def _follow(journal: Path, directory: Path, catalogue: Catalogue, piece: int) -> tuple[int, int]:
    name = _name_of(journal)
    if name is None:
        return 0, 0
    place = directory / "positions" / f"{name}.json"
    reader = JournalReader(journal, _position(place))
    decisions = labels = 0
    try:
        while records := reader.read(piece):
            first = records[0].sequence
            decoded = [decode_json(unpack(record.body).payload) for record in records]
            table = table_of(decoded, catalogue)
            newest = _label_table(decoded)
            for kind, content in (("decisions", table), ("labels", newest)):
                _write(content, directory / kind / _piece(name, first))
                _drop(directory / kind, _piece(name, first), _piece(name, reader.position.sequence))
            decisions += table.num_rows
            labels += newest.num_rows
            _put(place, json.dumps({**asdict(reader.position), "hash": reader.position.hash.hex()}).encode())
    finally:
        reader.close()
    return decisions, labels


def _name_of(journal: Path) -> str | None:
    """Its directory's, and its first record's hash: a new journal in an old place is another one."""
    reader = JournalReader(journal)
    try:
        first = reader.read(1)
    finally:
        reader.close()
    return journal_name(journal, first[0].hash) if first else None


def _position(place: Path) -> Position | None:
    if not place.is_file():
        return None
    value = json.loads(place.read_text())
    return Position(value["segment"], value["offset"], value["sequence"], bytes.fromhex(value["hash"]))


def _label_table(records: Sequence[Mapping[str, Any]]) -> pa.Table:
    rows = [{name: r[name] for name in _LABELS.names} for r in records if r["type"] == "label"]
    return pa.Table.from_pylist(rows, _LABELS)


def _write(table: pa.Table, place: Path) -> None:
    if table.num_rows == 0:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_suffix(".draft")
    pq.write_table(table, draft, compression="zstd")
    _sync(draft)
    os.replace(draft, place)


def _piece(name: str, first: int) -> str:
    return f"{name}-{first:012}.parquet"


def _drop(folder: Path, after: str, before: str) -> None:
    """Pieces of an earlier pass whose records the new piece holds as well."""
    for place in folder.glob("*.parquet"):
        if after < place.name < before:
            place.unlink()


def _put(place: Path, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_suffix(".draft")
    draft.write_bytes(content)
    _sync(draft)
    os.replace(draft, place)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
