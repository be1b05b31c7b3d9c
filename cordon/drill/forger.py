"""Bends a journal the way somebody would who may write its files but has none of the signing keys.

What can be put right without a key is put right: lengths, counts, numbers and checksums of all headers,
here and in all later segments. The hash chain behind the damage is left as it is: to rewrite it as well is
a damage of its own (`rewrite`). Every edit can be undone.
"""

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from api.audit.diagnosis import Stored, records_between
from api.segment import (
    BATCH_HEADER,
    BATCH_MAGIC,
    LENGTH,
    SEGMENT_HEADER,
    Head,
    batch_at,
    name_of,
    read_segment_header,
    segment_header,
    segments_in,
)


@dataclass(slots=True)
class Lot:
    """A batch taken apart."""

    epoch: int
    records: list[Stored]


@dataclass(slots=True)
class Opened:
    """A segment taken apart."""

    path: Path
    number: int
    epoch: int
    head: Head
    lots: list[Lot]

    def find(self, sequence: int) -> tuple[Lot, int]:
        """The batch that holds a record, and the record's place in it. Raises `LookupError`."""
        place = sequence - self.head.sequence
        for lot in self.lots:
            if place < len(lot.records):
                return lot, place
            place -= len(lot.records)
        raise LookupError(f"{self.path.name} has no record {sequence}")

    def bytes(self) -> bytes:
        """The segment with headers that fit its records as they are now."""
        parts = [segment_header(self.number, self.epoch, self.head)]
        offset, sequence = SEGMENT_HEADER.size, self.head.sequence
        for lot in self.lots:
            if not lot.records:
                continue
            body = b"".join(LENGTH.pack(len(r.body)) + bytes(r.body) + r.hash for r in lot.records)
            parts += (_header(lot.epoch, len(lot.records), sequence, offset, len(body)), body)
            offset += BATCH_HEADER.size + len(body)
            sequence += len(lot.records)
        return b"".join(parts)


class Forger:
    """Edits of one journal, and the way back."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.paths = segments_in(directory)
        self._undo: list[tuple[Path, int | None, bytes | Path]] = []

    def open(self, sequence: int) -> Opened:
        """The segment that holds a record, taken apart."""
        for path in reversed(self.paths):
            with path.open("rb") as file:
                _, _, head = read_segment_header(path, memoryview(file.read(SEGMENT_HEADER.size)))
            if head.sequence <= sequence:
                return _open(path)
        raise LookupError(f"no segment has record {sequence}")

    def change(self, sequence: int, at: int, bit: int) -> Path:
        """Flip one bit of byte `at` of a record's body."""
        opened = self.open(sequence)
        lot, place = opened.find(sequence)
        body = bytearray(lot.records[place].body)
        body[at % len(body)] ^= 1 << bit
        lot.records[place] = Stored(memoryview(bytes(body)), lot.records[place].hash)
        self._replace(opened)
        return opened.path

    def remove(self, sequence: int) -> Path:
        """Take a record out, and call everything behind it one less."""
        opened = self.open(sequence)
        lot, place = opened.find(sequence)
        del lot.records[place]
        self._replace(opened)
        self._renumber(opened.number, -1)
        return opened.path

    def insert(self, sequence: int, body: bytes) -> Path:
        """Put a record before another one, with a hash that follows; all behind it are called one more."""
        opened = self.open(sequence)
        lot, place = opened.find(sequence)
        before = self._hash_before(opened, sequence)
        lot.records.insert(place, Stored(memoryview(body), sha256(before + body).digest()))
        self._replace(opened)
        self._renumber(opened.number, 1)
        return opened.path

    def swap(self, first: int, second: int) -> Path:
        """Exchange two records with their hashes; the segment of the first."""
        here = self.open(first)
        there = self.open(second)
        if there.path == here.path:
            there = here
        (lot, place), (other, elsewhere) = here.find(first), there.find(second)
        lot.records[place], other.records[elsewhere] = other.records[elsewhere], lot.records[place]
        self._replace(here)
        if there is not here:
            self._replace(there)
        return here.path

    def body(self, sequence: int) -> bytes:
        """A record's body."""
        lot, place = self.open(sequence).find(sequence)
        return bytes(lot.records[place].body)

    def cut(self, sequence: int) -> tuple[Path, int]:
        """End the journal before the batch that holds a record, as if nothing had ever followed; the segment
        in which it ends, and the first record that is gone."""
        opened = self.open(sequence)
        lot, place = opened.find(sequence)
        del opened.lots[opened.lots.index(lot) :]
        self._replace(opened)
        for path in self.paths[opened.number :]:
            self._take(path)
        return opened.path, sequence - place

    def delete(self, number: int) -> Path:
        """Delete a segment."""
        self._take(self.directory / name_of(number))
        return self.directory / name_of(number)

    def rewrite(self, sequence: int, body: bytes) -> Path:
        """Put another body in a record's place and make a whole chain of everything behind it."""
        opened, found = self.open(sequence), None
        for path in self.paths[opened.number - 1 :]:
            opened = _open(path) if found is not None else opened
            if found is not None:
                opened.head = Head(opened.head.sequence, found)
            before, number = opened.head.hash, opened.head.sequence
            for lot in opened.lots:
                for place, record in enumerate(lot.records):
                    chosen = memoryview(body) if number == sequence else record.body
                    before = sha256(before + chosen).digest() if number >= sequence else record.hash
                    lot.records[place] = Stored(chosen, before)
                    number += 1
            found = before
            self._replace(opened)
        return self.open(sequence).path

    def forget_mark(self) -> None:
        """Delete the note of how far the journal was durable: it would give a cut away."""
        if (self.directory / "mark").exists():
            self._take(self.directory / "mark")

    def undo(self) -> None:
        """Everything as it was."""
        for path, offset, before in reversed(self._undo):
            if isinstance(before, Path):
                os.replace(before, path)
            else:
                with path.open("r+b") as file:
                    file.seek(offset or 0)
                    file.write(before)
        self._undo.clear()

    def _hash_before(self, opened: Opened, sequence: int) -> bytes:
        if sequence == opened.head.sequence:
            return opened.head.hash
        lot, place = opened.find(sequence - 1)
        return lot.records[place].hash

    def _replace(self, opened: Opened) -> None:
        data = opened.bytes()
        self._take(opened.path)
        opened.path.write_bytes(data)

    def _take(self, path: Path) -> None:
        aside = path.with_name(f"{path.name}.aside-{len(self._undo)}")
        os.replace(path, aside)
        self._undo.append((path, None, aside))

    def _renumber(self, number: int, by: int) -> None:
        """Add to every record number in the headers of the segments behind `number`."""
        for path in self.paths[number:]:
            with path.open("r+b") as file:
                data = memoryview(file.read())
                own, epoch, head = read_segment_header(path, data)
                new = [(0, segment_header(own, epoch, Head(head.sequence + by, head.hash)))]
                offset = SEGMENT_HEADER.size
                while (batch := batch_at(data, offset)) is not None:
                    length = batch.end - offset - BATCH_HEADER.size
                    header = _header(batch.epoch, batch.records, batch.sequence + by, offset, length)
                    new.append((offset, header))
                    offset = batch.end
                for at, header in new:
                    self._undo.append((path, at, bytes(data[at : at + len(header)])))
                    file.seek(at)
                    file.write(header)


def _open(path: Path) -> Opened:
    data = memoryview(path.read_bytes())
    number, epoch, head = read_segment_header(path, data)
    lots, offset = [], SEGMENT_HEADER.size
    while (batch := batch_at(data, offset)) is not None:
        records, _ = records_between(data, offset + BATCH_HEADER.size, batch.end)
        lots.append(Lot(batch.epoch, records))
        offset = batch.end
    return Opened(path, number, epoch, head, lots)


def _header(epoch: int, records: int, sequence: int, offset: int, length: int) -> bytes:
    bare = BATCH_HEADER.pack(BATCH_MAGIC, 0, epoch, records, sequence, offset, length, 0)
    return bare[:4] + LENGTH.pack(zlib.crc32(bare[8:])) + bare[8:]


def starts_of(paths: Sequence[Path]) -> list[int]:
    """Number of each segment's first record."""
    found = []
    for path in paths:
        with path.open("rb") as file:
            found.append(read_segment_header(path, memoryview(file.read(SEGMENT_HEADER.size)))[2].sequence)
    return found
