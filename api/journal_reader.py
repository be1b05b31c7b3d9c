"""Reading a journal from a position onward, while it is being written."""

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from api.journal import Mark
from api.record import decode_json, unpack
from api.segment import (
    SEGMENT_HEADER,
    Damage,
    Head,
    Record,
    batch_at,
    later_batch,
    name_of,
    read_segment_header,
    records_of,
)
from api.segment_file import open_segment

_AT_ONCE: Final = 10_000


def journals_in(directory: Path, pattern: str = "*") -> list[Path]:
    """The journals directly below a directory, by name; `pattern` chooses among the names."""
    return sorted(mark.parent for mark in directory.glob(f"{pattern}/mark"))


def contents(*journals: Path) -> Iterator[dict[str, Any]]:
    """Every durable record of these journals, decoded, one journal after the other, oldest record first.

    Each chain is checked on the way. Raises `Damage`, `MalformedRecord`.
    """
    for journal in journals:
        reader = JournalReader(journal)
        try:
            while records := reader.read(_AT_ONCE):
                yield from (decode_json(unpack(record.body).payload) for record in records)
        finally:
            reader.close()


@dataclass(frozen=True, slots=True)
class Position:
    """Between two batches: everything before it was read. Offset 0: before the segment's header."""

    segment: int = 1
    offset: int = 0
    sequence: int = 0
    hash: bytes = Head().hash

    @property
    def head(self) -> Head:
        """The chain's end at this position."""
        return Head(self.sequence, self.hash)


class JournalReader:
    """Follows a journal behind its writer; reads durable batches only, each checked against the chain."""

    def __init__(self, directory: Path, position: Position | None = None) -> None:
        self.directory = directory
        self.position = position or Position()
        self._mark = Mark(directory)
        self._file: int | None = None
        self._map: mmap.mmap | None = None
        self._mapped = 0

    def read(self, limit: int) -> list[Record]:
        """At least `limit` records if that many are durable (whole batches), else those that are.

        Never blocks for data. Raises `Damage`.
        """
        found: list[Record] = []
        while len(found) < limit:
            segment, durable = self._mark.durable
            if segment < self.position.segment or (
                segment == self.position.segment and durable <= self.position.offset
            ):
                break
            last = segment == self.position.segment
            before = self.position
            found += self._read_segment(durable if last else None, limit - len(found))
            if last and self.position == before:
                break
        return found

    def _read_segment(self, durable: int | None, limit: int) -> list[Record]:
        path = self.directory / name_of(self.position.segment)
        data = self._view(path, durable)
        try:
            return self._read_batches(path, data, durable, limit)
        finally:
            data.release()

    def _read_batches(self, path: Path, data: memoryview, durable: int | None, limit: int) -> list[Record]:
        here = self.position
        offset, head = here.offset, here.head
        if offset == 0:
            _, _, before = read_segment_header(path, data)
            if before != head:
                raise Damage(path, before.sequence, f"it does not continue record {head.sequence}")
            offset = SEGMENT_HEADER.size
        found: list[Record] = []
        end = len(data) if durable is None else durable
        while offset < end and len(found) < limit:
            batch = batch_at(data, offset)
            if batch is None:
                if durable is not None or later_batch(data, offset, head.sequence - 1) is not None:
                    raise Damage(path, head.sequence, "the batch was changed")
                break
            found += records_of(path, data, batch, head)
            head = Head(found[-1].sequence + 1, found[-1].hash)
            offset = batch.end
        if durable is None and len(found) < limit:
            self._close_segment()
            self.position = Position(here.segment + 1, 0, head.sequence, head.hash)
        else:
            self.position = Position(here.segment, offset, head.sequence, head.hash)
        return found

    def _view(self, path: Path, durable: int | None) -> memoryview:
        if self._file is None:
            try:
                self._file = open_segment(path)
            except FileNotFoundError as error:
                raise Damage(path, self.position.sequence, "the segment is missing") from error
        size = os.fstat(self._file).st_size
        if durable is not None and durable > size:
            raise Damage(path, self.position.sequence, "the segment is cut off")
        if self._map is None or size != self._mapped:
            if self._map is not None:
                self._map.close()
            self._map = mmap.mmap(self._file, size, access=mmap.ACCESS_READ)
            self._mapped = size
        return memoryview(self._map)

    def _close_segment(self) -> None:
        # The map is closed with the next one: a view of it may still be in use by the caller above.
        if self._file is not None:
            os.close(self._file)
        self._file, self._mapped = None, -1

    @property
    def backlog(self) -> int:
        """Durable records that were not read yet."""
        return max(0, self._mark.sequence - self.position.sequence)

    def ship(self) -> None:
        """Let the writer know that everything before the position is in Kafka."""
        self._mark.shipped = self.position.sequence

    def close(self) -> None:
        """Release files."""
        self._close_segment()
        if self._map is not None:
            self._map.close()
            self._map = None
        self._mark.close()
