"""Makes checkpoints of growing journals, from the hashes that their writers stored.

Works beside the writers and never in their way: it reads durable batches and hashes 33 bytes per record.
Where it goes on after a restart is in the newest anchored checkpoint; it keeps nothing of its own.
"""

import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.audit.anchors import AnchorsUnavailable, FileAnchors
from api.audit.checkpoint import NONE_BEFORE, Checkpoint, MalformedCheckpoint
from api.audit.keys import KeyDirectory, KeyUnusable
from api.audit.merkle import Tree, leaves_of
from api.journal import Mark
from api.segment import (
    BATCH_HEADER,
    HASH_BYTES,
    LENGTH,
    SEGMENT_HEADER,
    Damage,
    name_of,
    read_batch_header,
    read_segment_header,
)
from api.segment_file import open_segment

RECENT: Final = 256
RETRY_MS: Final = 1_000


class CheckpointsStopped(Exception):
    """No checkpoint can be made now: decisions go on, the unprotected interval grows. Try again later."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A checkpoint is due after so many records, or so long after the first record that has none."""

    records: int = 10_000
    ms: int = 5_000


@dataclass(frozen=True, slots=True)
class Unprotected:
    """What no checkpoint covers yet. `age_ms`: of the oldest such record, as far as it was seen."""

    records: int
    age_ms: int


class Followed:
    """One journal: how far its hashes were read, and its newest checkpoint."""

    def __init__(self, directory: Path, last: Checkpoint | None) -> None:
        """Continue behind `last`. Raises `MalformedCheckpoint`, `Damage`."""
        self.directory = directory
        self.last = last
        self.tree = Tree() if last is None else last.tree()
        self.segment, self.offset = (1, 0) if last is None else (last.segment, last.offset)
        self.head = bytes(HASH_BYTES) if last is None else bytes.fromhex(last.head)
        self.since_ms: int | None = None
        self.recent: deque[Checkpoint] = deque(maxlen=RECENT)
        self._file: int | None = None
        if last is not None and self._stored_head() != self.head:
            raise Damage(
                directory / name_of(self.segment), last.size - 1, "the record is not the one that was signed"
            )
        self.mark = Mark(directory)

    @property
    def covered(self) -> int:
        """Records that a checkpoint covers."""
        return 0 if self.last is None else self.last.size

    def read(self, limit: int) -> list[bytes]:
        """Hashes of the next durable records, whole batches, until there are `limit`. Raises `Damage`."""
        found: list[bytes] = []
        while len(found) < limit and (self.segment, self.offset) < self.mark.durable:
            found += self._batch(last=self.segment == self.mark.durable[0])
        if found:
            self.head = found[-1]
            self.tree.extend(leaves_of(found))
        return found

    def _batch(self, *, last: bool) -> list[bytes]:
        path = self.directory / name_of(self.segment)
        if self._file is None:
            try:
                self._file = open_segment(path)
            except FileNotFoundError as error:
                raise Damage(path, self.tree.size, "the segment is missing") from error
        if self.offset == 0:
            read_segment_header(path, memoryview(os.pread(self._file, SEGMENT_HEADER.size, 0)))
            self.offset = SEGMENT_HEADER.size
            return []
        batch = read_batch_header(os.pread(self._file, BATCH_HEADER.size, self.offset), self.offset)
        if batch is None:
            if last:
                raise Damage(path, self.tree.size, "the batch was changed")
            self.close_segment()
            self.segment, self.offset = self.segment + 1, 0
            return []
        start = self.offset + BATCH_HEADER.size
        data = os.pread(self._file, batch.end - start, start)
        hashes = list(stored_hashes(data))
        if len(hashes) != batch.records:
            raise Damage(path, batch.sequence + len(hashes), "the record's length was changed")
        self.offset = batch.end
        return hashes

    def checkpoint(self, journal: str, time_ms: int, key: str) -> Checkpoint:
        """What is read so far, unsigned."""
        return Checkpoint(
            journal=journal,
            number=0 if self.last is None else self.last.number + 1,
            first=self.covered,
            size=self.tree.size,
            segment=self.segment,
            offset=self.offset,
            head=self.head.hex(),
            root=self.tree.root.hex(),
            peaks=tuple(peak.hex() for peak in self.tree.peaks),
            previous=NONE_BEFORE if self.last is None else self.last.hash(),
            time_ms=time_ms,
            key=key,
        )

    def _stored_head(self) -> bytes:
        path = self.directory / name_of(self.segment)
        try:
            file = open_segment(path)
        except FileNotFoundError as error:
            raise Damage(path, self.tree.size, "the segment is missing") from error
        try:
            if self.offset <= SEGMENT_HEADER.size:
                return read_segment_header(path, memoryview(os.pread(file, SEGMENT_HEADER.size, 0)))[2].hash
            return os.pread(file, HASH_BYTES, self.offset - HASH_BYTES)
        finally:
            os.close(file)

    def close_segment(self) -> None:
        """Release the segment's file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def close(self) -> None:
        """Release files."""
        self.close_segment()
        self.mark.close()


class Notary:
    """Checkpoints of the journals that it is told to follow."""

    def __init__(self, anchors: FileAnchors, keys: KeyDirectory, interval: Interval) -> None:
        self.anchors = anchors
        self.keys = keys
        self.interval = interval
        self._followed: dict[str, Followed] = {}
        self._retry_ms = 0

    def follow(self, journal: str, directory: Path) -> None:
        """From now on this journal too. Raises `CheckpointsStopped`, `Damage`."""
        if journal in self._followed:
            return
        try:
            self._followed[journal] = Followed(directory, self.anchors.last(journal))
        except (AnchorsUnavailable, MalformedCheckpoint) as error:
            raise CheckpointsStopped(str(error)) from error

    def step(self, now_ms: int) -> int:
        """Make the checkpoints that are due, at most one per journal; how many.

        Raises `CheckpointsStopped`, `Damage`.
        """
        if now_ms < self._retry_ms:
            return 0
        made = 0
        for journal, followed in self._followed.items():
            if self._due(followed, now_ms):
                try:
                    self._make(journal, followed, now_ms)
                except (AnchorsUnavailable, KeyUnusable) as error:
                    self._retry_ms = now_ms + RETRY_MS
                    raise CheckpointsStopped(str(error)) from error
                made += 1
        return made

    def behind(self, journal: str, number: int) -> list[Checkpoint]:
        """Checkpoints of a journal after `number`. Raises `CheckpointsStopped`."""
        followed = self._followed.get(journal)
        if followed is None or followed.last is None or followed.last.number <= number:
            return []
        recent = [each for each in followed.recent if each.number > number]
        if recent and recent[0].number == number + 1:
            return recent
        try:
            return self.anchors.after(journal, number)
        except (AnchorsUnavailable, MalformedCheckpoint) as error:
            raise CheckpointsStopped(str(error)) from error

    def unprotected(self, now_ms: int) -> Mapping[str, Unprotected]:
        """By journal."""
        return {
            journal: Unprotected(
                max(0, followed.mark.sequence - followed.covered),
                0 if followed.since_ms is None else max(0, now_ms - followed.since_ms),
            )
            for journal, followed in self._followed.items()
        }

    def close(self) -> None:
        """Release files."""
        for followed in self._followed.values():
            followed.close()
        self._followed.clear()

    def _due(self, followed: Followed, now_ms: int) -> bool:
        missing = followed.tree.size - followed.covered
        found = followed.read(self.interval.records - missing)
        missing += len(found)
        if missing and followed.since_ms is None:
            followed.since_ms = now_ms
        if not missing or followed.since_ms is None:
            return False
        return missing >= self.interval.records or now_ms - followed.since_ms >= self.interval.ms

    def _make(self, journal: str, followed: Followed, now_ms: int) -> None:
        key = self.keys.signing()
        if followed.last is None or followed.last.key != key.id:
            for line in self.keys.statements():
                self.anchors.add_rotation(line)
        made = followed.checkpoint(journal, now_ms, key.id).signed_by(key)
        self.anchors.add(made)
        followed.last, followed.since_ms = made, None
        followed.recent.append(made)


def stored_hashes(records: bytes) -> Iterator[bytes]:
    """The hashes that stand in the records of a batch, unchecked; ends where they do not fit."""
    at, end = 0, len(records)
    while at + LENGTH.size + HASH_BYTES <= end:
        stored = at + LENGTH.size + LENGTH.unpack_from(records, at)[0]
        at = stored + HASH_BYTES
        if at <= end:
            yield records[stored:at]
