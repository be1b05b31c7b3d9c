"""The warm store: decisions that left the query store, in Parquet, one directory per day of deciding (UTC).

    <directory>/decisions/day=2026-11-21/part-0123456789abcdef.parquet     zstd, sorted by id
    <directory>/lock                                                       one mover at a time

Columns: `id time_ms decided_ms outcome score terms record`; `terms`: entity:NAME=PSEUDONYM, rule=ID,
reason=CODE; `record`: the JSON, as the log has it. A file is complete or not there, never changed, and named
by its content. Any tool that reads Parquet reads them.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from api.past.rows import Row

DAY_MS: Final = 86_400_000
# A look-up reads one group: small ones are found fast, large ones pack better.
GROUP_ROWS: Final = 500
SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("time_ms", pa.int64()),
        ("decided_ms", pa.int64()),
        ("outcome", pa.dictionary(pa.int8(), pa.string())),
        ("score", pa.int16()),
        ("terms", pa.list_(pa.string())),
        ("record", pa.binary()),
    ]
)


class WarmBusy(Exception):
    """Another process moves decisions: let it."""


class WarmMissing(Exception):
    """A file of the warm store is not where it was: mount it, or restore it."""


def day_of(decided_ms: int) -> str:
    """The day as directories name it."""
    return datetime.fromtimestamp(decided_ms / 1_000, UTC).date().isoformat()


class WarmStore:
    """The files below a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The only mover. Raises `WarmBusy`, `OSError`."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise WarmBusy(f"{self.directory} is being written by another process") from None
            yield

    def files(self) -> list[str]:
        """Names of the complete files, oldest day first."""
        root = self.directory / "decisions"
        return sorted(str(path.relative_to(root)) for path in root.glob("day=*/part-*.parquet"))

    def write(self, day: str, rows: Iterable[Sequence[Row]]) -> str:
        """Write pieces of rows, sorted by id, and return the file's name once it is durable.

        A row: id, time, decided, outcome, score, terms, record. Raises `OSError`; nothing is there then.
        """
        folder = self.directory / "decisions" / f"day={day}"
        folder.mkdir(parents=True, exist_ok=True)
        draft, digest = folder / "draft", hashlib.sha256()
        with pq.ParquetWriter(draft, SCHEMA, compression="zstd") as writer:
            for piece in rows:
                columns = [pa.array(column, kind) for column, kind in _columns(piece)]
                writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), row_group_size=GROUP_ROWS)
                for row in piece:
                    digest.update(row[0].encode() + b"\0" + row[-1])
        name = f"day={day}/part-{digest.hexdigest()[:16]}.parquet"
        _sync(draft)
        os.replace(draft, self.directory / "decisions" / name)
        for path in (folder, folder.parent, self.directory):
            _sync(path)
        return name

    def pieces(self, name: str, size: int) -> Iterator[list[tuple[str, bytes]]]:
        """Ids and records of a file, piece by piece. Raises `WarmMissing`."""
        with self._open(name) as file:
            for batch in file.iter_batches(size, columns=["id", "record"]):
                ids, records = batch.columns
                yield list(zip(ids.to_pylist(), records.to_pylist(), strict=True))

    def find(self, name: str, id_: str) -> bytes | None:
        """A record of a file, from the one group that may hold it. Raises `WarmMissing`."""
        with self._open(name) as file:
            for number in range(file.metadata.num_row_groups):
                held = file.metadata.row_group(number).column(0).statistics
                if held is not None and not (held.min <= id_ <= held.max):
                    continue
                ids = file.read_row_group(number, columns=["id"])["id"].to_pylist()
                if id_ in ids:
                    records = file.read_row_group(number, columns=["record"])["record"]
                    found: bytes = records[ids.index(id_)].as_py()
                    return found
        return None

    @contextmanager
    def _open(self, name: str) -> Iterator[pq.ParquetFile]:
        path = self.directory / "decisions" / name
        try:
            file = pq.ParquetFile(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise WarmMissing(f"{path} cannot be read: {error}") from error
        try:
            yield file
        finally:
            file.close()


def _columns(piece: Sequence[Row]) -> Iterator[tuple[Sequence[object], pa.DataType]]:
    for column, field in zip(zip(*piece, strict=True), SCHEMA, strict=True):
        yield column, field.type


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
