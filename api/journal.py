"""The journal: what was decided is durable before anybody hears of it.

One directory per writing process: numbered segments, `lock` (one writer), `mark` (epoch and how far the
journal is durable, for readers) and `shipped` (how far the publisher got).

What can go wrong, and what the caller does about it:

* `JournalUnavailable`   answer 503, decide nothing: the disk is full or broken
* `JournalLate`          answer 503: the disk stood still for so long that it was not written
* `JournalBusy`          stop: another process writes this journal
* `JournalFenced`        stop at once: a newer writer took this journal over
* `Damage`               stop: stored bytes were changed (see segment.py)
"""

import contextlib
import fcntl
import math
import mmap
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from api.record import Location
from api.segment import (
    HASH_BYTES,
    RECORD_BYTES_MAX,
    SEGMENT_HEADER,
    Damage,
    Head,
    batch_at,
    batch_bytes,
    later_batch,
    name_of,
    read_segment_header,
    records_of,
    segment_header,
    segments_in,
)
from api.segment_file import content_of
from api.spare import Spare, prewrite
from api.syncing import Inline, Order, Syncing, write_all

SEGMENT_BYTES = 64 * 1024 * 1024
# So much is prewritten at once, where nobody waits yet.
FRESH_BYTES = 4 * 1024 * 1024
_MARK_WORDS = 4  # epoch, durable (segment << 40 | offset), next sequence, shipped sequence
# So much may wait for the disk; the writer waits before more does.
WAITING_BYTES_MAX = 16 * 1024 * 1024


class JournalUnavailable(Exception):
    """The journal cannot be written: decide nothing until it can."""


class JournalLate(Exception):
    """The disk stood still until the records had to be given up: nothing of them was written."""


class JournalBusy(Exception):
    """Another process holds the journal's lock."""


class JournalFenced(Exception):
    """A newer writer took over: this one must stop."""


class Mark:
    """Numbers that the writer and its readers share: 8-byte words in a mapped file.

    A word is written whole; `durable` holds segment and offset in one word for that reason.
    """

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory / "mark", os.O_RDWR | os.O_CREAT, 0o640)
        if os.fstat(self._file).st_size < 8 * _MARK_WORDS:
            os.ftruncate(self._file, 8 * _MARK_WORDS)
        self._map = mmap.mmap(self._file, 8 * _MARK_WORDS)
        self._bytes = memoryview(self._map)
        self._words = self._bytes.cast("Q")

    @property
    def epoch(self) -> int:
        """Number of the newest writer."""
        return self._words[0]

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._words[0] = value
        self._map.flush()

    @property
    def durable(self) -> tuple[int, int]:
        """Segment number and offset behind the last durable batch."""
        word = self._words[1]
        return word >> 40, word & ((1 << 40) - 1)

    def advance(self, segment: int, offset: int, sequence: int) -> None:
        """Publish how far the journal is durable."""
        self._words[2] = sequence
        self._words[1] = segment << 40 | offset

    @property
    def sequence(self) -> int:
        """Number that the next record gets."""
        return self._words[2]

    @property
    def shipped(self) -> int:
        """Number of the first record that is not in Kafka yet."""
        return self._words[3]

    @shipped.setter
    def shipped(self, value: int) -> None:
        self._words[3] = value

    def close(self) -> None:
        """Release the mapping."""
        self._words.release()
        self._bytes.release()
        self._map.close()
        os.close(self._file)


def durable_of(mark: bytes) -> tuple[int, int]:
    """Segment number and offset behind the last durable batch, from the bytes of a mark file."""
    word = int.from_bytes(mark[8:16], "little")
    return word >> 40, word & ((1 << 40) - 1)


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening found: the chain's end, where to write, bytes of a torn tail that were cut off."""

    head: Head
    segment: int
    offset: int
    torn_bytes: int


@dataclass(slots=True, eq=False)
class Written:
    """Records on their way to the disk. `bodies`: while they wait for it, until `by_s` of the monotonic
    clock. `location`: where their batch begins, once it was written. `durable`: it is there; `failure`: why
    it may not be, or is not."""

    bodies: Sequence[bytes]
    by_s: float
    location: Location | None = None
    durable: bool = False
    failure: JournalUnavailable | JournalLate | JournalFenced | None = None

    @property
    def settled(self) -> bool:
        """Whether it is known what became of them."""
        return self.durable or self.failure is not None


class Journal:
    """The one writer of a journal directory. Not for use by several threads.

    `append` is `write` and `settle`. Between these two a caller may do something else, and write more: a
    batch is written when the one before is durable, and what was handed over meanwhile goes together.
    `head`: behind the last durable record. `syncing`: how batches are written; `close` ends it.
    """

    def __init__(
        self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES, syncing: Syncing | None = None
    ) -> None:
        """Lock, recover and continue; raises `JournalBusy`, `JournalUnavailable`, `Damage`."""
        self.directory = directory
        self.syncing = syncing or Inline()
        self._segment_bytes = segment_bytes
        self._failed: str | None = None
        self._waiting: list[Written] = []
        self._waiting_bytes = 0
        self._under_way: list[Written] = []
        self._batch_bytes = 0
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o640)
        except OSError as error:
            raise JournalUnavailable(f"{directory}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise JournalBusy(f"{directory} is being written by another process") from error
        self.mark = Mark(directory)
        self._spare = Spare(directory, segment_bytes)
        try:
            self.recovery = recover(directory, self.mark.durable)
            self.epoch = max(self.mark.epoch, _last_epoch(directory)) + 1
            self.mark.epoch = self.epoch
            self.head = self.recovery.head
            self._open()
        except OSError as error:
            self._release()
            raise JournalUnavailable(f"{directory}: {error.strerror}") from error
        except Damage:
            self._release()
            raise
        self.mark.advance(self._number, self._offset, self.head.sequence)

    @property
    def failure(self) -> str | None:
        """Why nothing can be written any more, if so."""
        return self._failed

    @property
    def backlog(self) -> int:
        """Records that the publisher has not shipped yet."""
        return self.head.sequence - self.mark.shipped

    def append(self, bodies: Sequence[bytes]) -> Head:
        """Write the records as one batch and return when they are durable.

        Raises `JournalUnavailable` (nothing of the batch counts as written; the journal stays closed to
        further records until it is opened again, since nobody knows what a failed sync left behind) and
        `JournalFenced`.
        """
        if bodies:
            self.settle(self.write(bodies))
        return self.head

    def write(self, bodies: Sequence[bytes], *, within_s: float = math.inf) -> Written:
        """Hand over records, of which nobody may hear before `settle` has returned.

        They are written at once, or when the disk has done what it is at; `is_settled` and `settle` see to
        that. `within_s`: then, or not at all. Raises what `append` does, and `JournalLate`.
        """
        if self._failed is not None:
            raise JournalUnavailable(self._failed)
        if max(map(len, bodies)) > RECORD_BYTES_MAX:
            raise ValueError(f"a record has more than {RECORD_BYTES_MAX} bytes")
        written = Written(bodies, time.monotonic() + within_s)
        self._waiting.append(written)
        self._waiting_bytes += sum(map(len, bodies))
        self._advance(patient=self._waiting_bytes > WAITING_BYTES_MAX)
        if written.failure is not None:
            raise written.failure
        return written

    def is_settled(self, written: Written) -> bool:
        """Whether `settle` would return, or raise, at once. Raises `JournalFenced`."""
        if not written.settled:
            self._advance()
        return written.settled

    def settle(self, written: Written) -> Location:
        """Until the records are durable: where their batch begins.

        Raises `JournalUnavailable`, `JournalLate`, `JournalFenced`.
        """
        while not written.settled:
            self._advance(patient=True)
        if written.failure is not None:
            raise written.failure
        if written.location is None:
            raise RuntimeError("what is durable lies somewhere")
        return written.location

    def _advance(self, *, patient: bool = False) -> None:
        """Take in what the disk has done, `patient`: once it has, and give it all that waits."""
        if self._under_way and not patient and not self.syncing.done():
            return
        self._land()
        if self._waiting:
            self._hand_over()

    def _hand_over(self) -> None:
        """Write what waits, as one batch."""
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        now_s = time.monotonic()
        batch = [written for written in waiting if now_s <= written.by_s]
        for written in waiting:
            if now_s > written.by_s:
                written.failure = JournalLate(f"{self.directory}: the disk stood still")
        if not batch:
            return
        if self.mark.epoch != self.epoch:
            fenced = JournalFenced(f"{self.directory}: writer {self.mark.epoch} took over from {self.epoch}")
            for written in batch:
                written.failure = fenced
            raise fenced
        bodies = [body for written in batch for body in written.bodies]
        self._batch_bytes = batch_bytes(bodies)
        try:
            if self._offset + self._batch_bytes > self._end and self._offset > SEGMENT_HEADER.size:
                self._rotate()
        except OSError as error:
            self._fail(batch, error)
            return
        self.syncing.start(Order(self._file, self._offset, self.epoch, self.head, bodies))
        location = Location(self.directory.name, self._number, self._offset)
        for written in batch:
            written.bodies, written.location = (), location
        self._under_way = batch

    def _land(self) -> None:
        """Until the batch under way is durable, or failed."""
        batch, self._under_way = self._under_way, []
        if not batch:
            return
        try:
            self.head = self.syncing.wait()
        except OSError as error:
            self._fail([*batch, *self._waiting], error)
            self._waiting, self._waiting_bytes = [], 0
            return
        self._offset += self._batch_bytes
        for written in batch:
            written.durable = True
        self.mark.advance(self._number, self._offset, self.head.sequence)
        if self._offset > self._end // 4:
            # Done when twice the time has passed that the first quarter took: three are what is left.
            self._spare.prepare(2 * (time.monotonic() - self._began_s))

    def _fail(self, batch: Sequence[Written], error: OSError) -> None:
        self._failed = f"{self.directory}: {error.strerror}"
        for written in batch:
            written.failure = JournalUnavailable(self._failed)

    def revive(self) -> bool:
        """Open again after a failure, if the disk allows; whether it did. Raises `Damage`.

        What the failed write left behind is kept where it is whole: those who retry find it as a record.
        """
        with contextlib.suppress(OSError):
            os.close(self._file)
        try:
            self.recovery = recover(self.directory, self.mark.durable)
            self.head = self.recovery.head
            self._open()
        except OSError as error:
            self._failed = f"{self.directory}: {error.strerror}"
            return False
        self._failed = None
        self.mark.advance(self._number, self._offset, self.head.sequence)
        return True

    def close(self) -> None:
        """Cut off what was allocated ahead and release the lock."""
        with contextlib.suppress(JournalFenced):
            while self._under_way or self._waiting:
                self._advance(patient=True)
        self.syncing.close()
        if self._failed is None:
            os.ftruncate(self._file, self._offset)
            os.fsync(self._file)
            os.close(self._file)
        self._release()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _release(self) -> None:
        self._spare.close()
        self.mark.close()
        os.close(self._lock)

    def _open(self) -> None:
        found = self.recovery
        self._began_s = time.monotonic()
        self._number, self._offset = found.segment, found.offset
        if found.offset == 0:
            self._begin(found.segment, waited_for=False)
            return
        self._file = os.open(self.directory / name_of(found.segment), os.O_RDWR)
        os.ftruncate(self._file, found.offset)
        self._end = found.offset + min(self._segment_bytes, FRESH_BYTES)
        prewrite(self._file, found.offset, self._end)
        os.fsync(self._file)

    def _rotate(self) -> None:
        os.ftruncate(self._file, self._offset)
        os.fsync(self._file)
        os.close(self._file)
        self._begin(self._number + 1, waited_for=True)

    def _begin(self, number: int, *, waited_for: bool) -> None:
        """`waited_for`: batches wait meanwhile. Syncs take longer then than in a segment that is prewritten,
        but nobody waits until it is."""
        source = self._spare.take()
        self._end = self._segment_bytes
        if source is None:
            source = self.directory / "fresh"
            self._file = os.open(source, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o640)
            if waited_for:
                os.posix_fallocate(self._file, 0, self._end)
            else:
                self._end = min(self._end, FRESH_BYTES)
                prewrite(self._file, 0, self._end)
        else:
            self._file = os.open(source, os.O_RDWR)
        write_all(self._file, segment_header(number, self.epoch, self.head), 0)
        os.fsync(self._file)
        os.rename(source, self.directory / name_of(number))
        _sync_directory(self.directory)
        self._number, self._offset = number, SEGMENT_HEADER.size
        self._began_s = time.monotonic()


def recover(directory: Path, durable: tuple[int, int] = (0, 0)) -> Recovery:
    """Find the end of the chain; a tail that a crash tore is left out, anything else raises `Damage`.

    `durable`: segment and offset up to which batches are known to have been synced: nothing before it
    can be torn. Only the last segment is read; `verify` reads them all.
    """
    found = segments_in(directory)
    if found and not any(content_of(found[-1])[: SEGMENT_HEADER.size]):
        found.pop().unlink()  # a crash between creating a segment and writing its header
    if not found:
        if durable[0]:
            raise Damage(directory / name_of(durable[0]), 0, "the segment is missing")
        return Recovery(Head(), 1, 0, 0)
    path = found[-1]
    data = memoryview(content_of(path))
    number, _, head = read_segment_header(path, data)
    if number < durable[0]:
        raise Damage(directory / name_of(durable[0]), 0, "the segment is missing")
    before = _end_of(found[-2]) if len(found) > 1 else head
    if before != head:
        raise Damage(path, head.sequence, "it does not continue the segment before")
    head, offset = scan(path, data, head, durable[1] if number == durable[0] else 0)
    return Recovery(head, number, offset, torn_bytes(data, offset))


def scan(path: Path, data: memoryview, head: Head, durable: int) -> tuple[Head, int]:
    """Check all batches of a segment that continues `head`: the chain's end and the offset behind it.

    What stands behind that offset is torn; it raises `Damage` where it cannot be, because it was
    durable or because an intact batch follows.
    """
    offset = SEGMENT_HEADER.size
    while (batch := batch_at(data, offset)) is not None:
        last = head
        try:
            for record in records_of(path, data, batch, head):
                last = Head(record.sequence + 1, record.hash)
        except Damage:
            if offset < durable or later_batch(data, offset + 1, batch.sequence) is not None:
                raise
            return head, offset
        head, offset = last, batch.end
    if later_batch(data, offset, head.sequence - 1) is not None:
        raise Damage(path, head.sequence, "the batch was changed")
    if offset < durable:
        kind = "the batch was changed" if torn_bytes(data, offset) else "the segment is cut off"
        raise Damage(path, head.sequence, kind)
    return head, offset


def torn_bytes(data: memoryview, offset: int) -> int:
    """How many bytes behind `offset` are not the zeros of what was allocated ahead."""
    return len(bytes(data[offset:]).rstrip(b"\0"))


def _end_of(path: Path) -> Head:
    data = memoryview(content_of(path))
    _, _, head = read_segment_header(path, data)
    offset, last = SEGMENT_HEADER.size, None
    while (batch := batch_at(data, offset)) is not None:
        last, offset = batch, batch.end
    if last is None:
        return head
    if last.end > len(data):
        raise Damage(path, last.sequence, "the segment is cut off")
    return Head(last.sequence + last.records, bytes(data[last.end - HASH_BYTES : last.end]))


def _last_epoch(directory: Path) -> int:
    found = segments_in(directory)
    if not found:
        return 0
    data = memoryview(content_of(found[-1]))
    _, epoch, _ = read_segment_header(found[-1], data)
    offset = SEGMENT_HEADER.size
    while (batch := batch_at(data, offset)) is not None:
        epoch, offset = max(epoch, batch.epoch), batch.end
    return epoch


def _sync_directory(directory: Path) -> None:
    file = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
