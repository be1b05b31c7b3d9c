"""Verification of a whole journal: every record against the chain, the chain against the signed checkpoints.

Reads files only, beside the writer or years later. One pass: large reads into one buffer, one hash per record
for the chain and two short ones for the tree; nothing is decoded. What is wrong is named by `diagnosis`.
"""

import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

from api.audit.chain import best
from api.audit.checkpoint import Checkpoint
from api.audit.diagnosis import diagnose
from api.audit.merkle import Tree, leaves_of
from api.journal import durable_of, torn_bytes
from api.segment import (
    BATCH_HEADER,
    BATCH_MAGIC,
    SEGMENT_HEADER,
    Damage,
    DamageSort,
    Head,
    later_batch,
    name_of,
    read_segment_header,
    segments_in,
)
from api.segment_file import content_of, open_segment, size_of

BUFFER_BYTES: Final = 4 * 1024 * 1024
TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Verified:
    """An intact journal. `protected`: records that a checkpoint covers; `torn_bytes`: of a tail that a crash
    tore, which are no records."""

    segments: int
    records: int
    head: Head
    torn_bytes: int
    checkpoints: int = 0
    protected: int = 0


def verify(directory: Path, checkpoints: Sequence[Checkpoint] = ()) -> Verified:
    """Check every record of a journal; raises `Damage` naming segment, record and what was done to it.

    `checkpoints`: of this journal, sorted, their signatures checked, read before this call where the journal
    is being written. A tail torn by a crash is no damage, unless a checkpoint covers it.
    """
    return _Pass(directory, checkpoints).run()


class _Stopped(Exception):
    """The bytes at `offset` are no batch that continues the chain."""

    def __init__(self, offset: int) -> None:
        self.offset = offset


@dataclass(frozen=True, slots=True)
class _Scanned:
    """What a buffer held: whole batches up to `at`, their hashes, and whether what follows is no batch that
    continues the chain. `needed`: bytes of the batch that follows, where it is not whole yet."""

    at: int
    head: Head
    hashes: list[bytes]
    broken: bool
    needed: int


class _Pass:
    """One verification."""

    def __init__(self, directory: Path, checkpoints: Sequence[Checkpoint]) -> None:
        self._directory = directory
        self._checkpoints = checkpoints
        self._met = 0
        self._tree = Tree()
        self._head = Head()
        self._continued = Head()  # what the newest segment continues
        self._starts: list[int] = []
        self._offset = 0  # behind the last intact batch of the newest segment
        self._durable = self._read_mark()
        self._paths = segments_in(directory)
        largest = max((size_of(path) for path in self._paths), default=0)
        self._buffer = bytearray(min(max(largest, BATCH_HEADER.size), BUFFER_BYTES))

    def run(self) -> Verified:
        """See `verify`."""
        torn = 0
        for index, path in enumerate(self._paths):
            if path.name != name_of(index + 1):
                raise self._missing(index + 1)
            last = index + 1 == len(self._paths)
            file = open_segment(path)
            try:
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)
                header = os.pread(file, SEGMENT_HEADER.size, 0)
                if last and not any(header):
                    break  # a crash between creating a segment and writing its header
                self._begin(index, memoryview(header))
                self._offset = self._segment(file, index, last=last)
            finally:
                os.close(file)
            if last:
                torn = torn_bytes(memoryview(content_of(path)), self._offset)
        self._end()
        protected = self._checkpoints[-1].size if self._checkpoints else 0
        return Verified(
            len(self._paths), self._head.sequence, self._head, torn, len(self._checkpoints), protected
        )

    def _begin(self, index: int, header: memoryview) -> None:
        """The segment's header continues the chain, or `Damage` says what it shows."""
        path, head = self._paths[index], self._head
        try:
            number, _, before = read_segment_header(path, header)
        except Damage as damage:
            sort: DamageSort = "truncated" if len(header) < SEGMENT_HEADER.size else "changed"
            raise Damage(path, head.sequence, damage.kind, sort) from damage
        self._starts.append(head.sequence)
        self._continued = head
        if number > index + 1:
            raise self._missing(index + 1)
        if before == head and number == index + 1:
            return
        missing = before.sequence - head.sequence
        if missing > 0 and index:
            kind = f"the segment is cut off: {missing} records are missing at its end"
            raise Damage(self._paths[index - 1], head.sequence, kind, "truncated")
        if missing > 0:
            raise Damage(path, 0, f"{missing} records are missing before it", "removed")
        if missing < 0 and index:
            kind = f"{-missing} records were inserted at the end of the segment"
            raise Damage(self._paths[index - 1], before.sequence, kind, "inserted")
        raise diagnose(self._paths, index, head, self._checkpoints)

    def _segment(self, file: int, index: int, *, last: bool) -> int:
        """Check the batches of a segment; the offset behind the last one."""
        offset, tries = SEGMENT_HEADER.size, 0
        while True:
            try:
                return self._batches(file, offset)
            except _Stopped as stopped:
                tries = tries + 1 if stopped.offset == offset else 0
                offset = stopped.offset
                if last and self._may_be_torn(index, offset):
                    return offset
                mark = self._read_mark()
                if mark == self._durable or tries == TRIES:
                    raise diagnose(self._paths, index, self._continued, self._checkpoints) from None
                # It is being written: what was read half is whole by now.
                self._durable = mark

    def _may_be_torn(self, index: int, offset: int) -> bool:
        if self._head.sequence < self._required or (index + 1, offset) < self._durable:
            return False
        data = memoryview(content_of(self._paths[index]))
        return later_batch(data, offset + 1, self._head.sequence) is None

    def _batches(self, file: int, offset: int) -> int:
        """Check the batches from `offset` to the end of the file; the offset behind the last one."""
        buffer = self._buffer
        while True:
            with memoryview(buffer) as view:
                filled = _fill(file, offset, view)
                found = _scan(buffer, view, filled, offset, self._head)
            self._head = found.head
            self._cover(found.hashes)
            offset += found.at
            if found.broken:
                raise _Stopped(offset)
            if found.at:
                continue
            if not filled:
                return offset
            if not filled < found.needed <= os.fstat(file).st_size - offset:
                raise _Stopped(offset)  # the file ends within a batch
            self._buffer = buffer = bytearray(found.needed)

    def _cover(self, hashes: list[bytes]) -> None:
        """Add records to the tree, and compare it wherever a checkpoint was made."""
        taken = 0
        while self._met < len(self._checkpoints):
            checkpoint = self._checkpoints[self._met]
            until = checkpoint.size - self._tree.size
            if until > len(hashes) - taken:
                break
            self._tree.extend(leaves_of(hashes[taken : taken + until]))
            taken += until
            if self._tree.root.hex() != checkpoint.root:
                raise self._rewritten(checkpoint)
            self._met += 1
        self._tree.extend(leaves_of(hashes[taken:]))

    def _end(self) -> None:
        """Nothing that is known to have been there is missing at the end."""
        records, count = self._head.sequence, len(self._paths)
        if self._durable[0] > count:
            raise self._missing(count + 1)
        if self._met == len(self._checkpoints):
            if self._durable[0] == count and self._offset < self._durable[1]:
                raise Damage(self._paths[-1], records, "the segment is cut off", "truncated")
            return
        checkpoint = self._checkpoints[self._met]
        if checkpoint.segment > count:
            raise self._missing(count + 1)
        covered = f"checkpoint {checkpoint.number} covers {checkpoint.covers}"
        kind = f"the journal ends here, but {covered}: the tail was cut off"
        raise Damage(self._paths[-1], records, kind, "truncated")

    @property
    def _required(self) -> int:
        return self._checkpoints[-1].size if self._checkpoints else 0

    def _read_mark(self) -> tuple[int, int]:
        mark = self._directory / "mark"
        return durable_of(mark.read_bytes()) if mark.exists() else (0, 0)

    def _missing(self, number: int) -> Damage:
        path = self._directory / name_of(number)
        return Damage(path, self._head.sequence, "the segment is missing", "segment_deleted")

    def _rewritten(self, checkpoint: Checkpoint) -> Damage:
        first = self._checkpoints[self._met - 1].size if self._met else 0
        path = self._paths[bisect_right(self._starts, first) - 1]
        kind = (
            f"records {first} to {checkpoint.size - 1} form a chain, but not the one that checkpoint "
            f"{checkpoint.number} signed: they were rewritten"
        )
        return Damage(path, first, kind, "rewritten")


def _fill(file: int, offset: int, view: memoryview) -> int:
    """Read from `offset` on until the buffer is full or the file ends; how many bytes."""
    filled = 0
    while filled < len(view):
        got = os.preadv(file, [view[filled:]], offset + filled)
        if not got:
            break
        filled += got
    return filled


def _scan(buffer: bytearray, view: memoryview, filled: int, base: int, head: Head) -> _Scanned:
    """Check all batches that are whole in the buffer, with as few steps per record as there are."""
    header, check, digest, sequence = BATCH_HEADER.unpack_from, best(), head.hash, head.sequence
    head_bytes = BATCH_HEADER.size
    hashes: list[bytes] = []
    at = 0
    while filled - at >= head_bytes:
        magic, crc, _, records, first, own, size, _ = header(buffer, at)
        place, end = at + head_bytes, at + head_bytes + size
        intact = magic == BATCH_MAGIC and own == base + at and first == sequence
        if not intact or crc != crc32(view[at + 8 : place]):
            return _Scanned(at, Head(sequence, digest), hashes, True, 0)
        if end > filled:
            return _Scanned(at, Head(sequence, digest), hashes, False, end - at)
        found = check(buffer, place, end, records, digest)
        if found is None:
            return _Scanned(at, Head(sequence, digest), hashes, True, 0)
        if found:
            hashes += found
            digest = found[-1]
        sequence += records
        at = end
    return _Scanned(at, Head(sequence, digest), hashes, False, head_bytes)
