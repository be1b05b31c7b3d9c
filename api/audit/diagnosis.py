"""What was done to a damaged journal: the record, and whether it was changed, removed, inserted or moved.

Every record's hash covers the hash of the record before it. So the hashes say which record belongs behind
which, whatever the numbers around them claim:

    stored    a  b  d  e       d does not follow from b, e follows from d: c was removed, or d changed
    stored    a  b  x  c       c follows from b, two places before: x was inserted
    stored    a  c  b  d       b, the true follower of a, stands later: reordered

Removed and changed look alike where the numbers were put right as well. Then the next signed checkpoint
decides: its record stands where it was signed, or nearer to the beginning.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final
from zlib import crc32

from api.audit.checkpoint import Checkpoint
from api.journal import torn_bytes
from api.segment import (
    BATCH_HEADER,
    BATCH_MAGIC,
    HASH_BYTES,
    LENGTH,
    RECORD_BYTES_MAX,
    SEGMENT_HEADER,
    Damage,
    DamageSort,
    Head,
    read_segment_header,
)
from api.segment_file import content_of

INSERTED_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it lies there: its body, and the hash that stands behind it."""

    body: memoryview
    hash: bytes

    def follows(self, before: bytes, *, hash: bytes | None = None) -> bool:
        """Whether its hash (or another one) is the right one behind a record with the hash `before`."""
        return sha256(before + self.body).digest() == (self.hash if hash is None else hash)


@dataclass(frozen=True, slots=True)
class Header:
    """A batch header whose checksum is right: where it lies, and what it says."""

    at: int
    own: int
    sequence: int
    records: int
    end: int


@dataclass(frozen=True, slots=True)
class Region:
    """What lies between one batch header and the next. `header`: `None` where it was changed; `count`:
    records before it in the segment; `rest`: bytes at the end that are no record; `lack`: bytes fewer than
    its header says, or by which what follows a changed header lies too near."""

    header: Header | None
    count: int
    records: list[Stored]
    rest: int
    lack: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment, read without believing its numbers. `head`: what its header continues."""

    path: Path
    head: Head
    regions: list[Region]

    @property
    def records(self) -> list[Stored]:
        """All its records, in the order in which they lie there."""
        return [record for region in self.regions for record in region.records]


def diagnose(paths: Sequence[Path], index: int, head: Head, checkpoints: Sequence[Checkpoint]) -> Damage:
    """What is wrong with segment `paths[index]`, which must continue `head`. Everything before it is a whole
    chain. May read all later segments."""
    segment = read_segment(paths[index])
    records = segment.records
    place = _first_broken(records, head.hash)
    if place != 0 and segment.head != head:
        return Damage(segment.path, head.sequence, "the segment's header was changed")
    frame = _broken_frame(segment, head.sequence, len(records) if place is None else place)
    if frame is not None:
        return frame
    if place is not None:
        return _Break(segment, records, place, head, paths, index, checkpoints).damage()
    end = head.sequence + len(records)
    if index + 1 == len(paths):
        return Damage(segment.path, end, "the segment is cut off here", "truncated")
    return Damage(segment.path, end, "the header of a batch was changed")


class _Break:
    """The record at `place` of a segment does not follow from the one before it."""

    def __init__(
        self,
        segment: Segment,
        records: list[Stored],
        place: int,
        head: Head,
        paths: Sequence[Path],
        index: int,
        checkpoints: Sequence[Checkpoint],
    ) -> None:
        self.segment = segment
        self.records = records
        self.place = place
        self.head = head
        self.number = head.sequence + place
        self.later = paths[index + 1 :]
        self.earlier = paths[index - 1] if index else None
        self.checkpoints = checkpoints
        self.broken = records[place]
        self.before = records[place - 1].hash if place else head.hash

    def damage(self) -> Damage:
        """The most certain explanation."""
        return (
            self._inserted_before()
            or self._moved_here()
            or self._hash_changed()
            or self._other_length()
            or self._other_count()
            or self._moved_far()
            or self._by_checkpoint()
        )

    def _named(self, number: int, kind: str, sort: DamageSort, path: Path | None = None) -> Damage:
        return Damage(path or self.segment.path, number, kind, sort)

    def _inserted_before(self) -> Damage | None:
        """Does it follow from a record further back? Then what stands between them does not belong there."""
        earlier = read_segment(self.earlier).records[-INSERTED_MAX:] if self.earlier is not None else []
        hashes = [record.hash for record in (*earlier, *self.records[: self.place])]
        if self.earlier is None:
            hashes.insert(0, self.head.hash)
        for count, hash in enumerate(reversed(hashes[-INSERTED_MAX:-1]), 1):
            if self.broken.follows(hash):
                path = self.earlier if count > self.place else None
                return self._inserted(self.number - count, count, path)
        return None

    def _moved_here(self) -> Damage | None:
        """Is the record that belongs here in this segment, further on?"""
        before = self.before
        for there in range(self.place + 1, len(self.records)):
            record = self.records[there]
            if record.follows(before, hash=self.broken.hash):
                return self._swapped(there - self.place, "their hashes stayed")
            if not record.follows(before):
                continue
            after = there + 1
            goes_on = after < len(self.records) and self.records[after].follows(record.hash)
            ends = after == len(self.records) and self._surplus() > 0
            if (goes_on or ends) and not self.broken.follows(record.hash):
                return self._inserted(self.number, there - self.place)
            return self._swapped(there - self.place, "hashes included")
        return None

    def _hash_changed(self) -> Damage | None:
        right = sha256(self.before + self.broken.body).digest()
        after = self.place + 1
        if after < len(self.records) and self.records[after].follows(right):
            return self._named(self.number, "the hash stored with the record was changed", "changed")
        return None

    def _other_length(self) -> Damage | None:
        """Records do not fit between two batch headers: a length was changed, or bytes are gone or new."""
        here, _ = self._regions()
        if not here.rest:
            return None
        return _reframed(self.segment.path, self.number, here.lack, "the record or its length")

    def _other_count(self) -> Damage | None:
        """The next header's number says how many records once stood before it."""
        surplus = self._surplus()
        if surplus < 0:
            return self._removed(-surplus)
        if surplus > 0:
            return self._inserted(self.number, surplus)
        return None

    def _moved_far(self) -> Damage | None:
        """Is the record that belongs here in a later segment?"""
        distance = len(self.records) - self.place
        for path in self.later:
            found = read_segment(path, lenient=True).records
            for there, record in enumerate(found):
                hash = sha256(self.before + record.body).digest()
                if hash in (record.hash, self.broken.hash):
                    kept = "hashes included" if hash == record.hash else "their hashes stayed"
                    return self._swapped(distance + there, kept)
            distance += len(found)
        return None

    def _by_checkpoint(self) -> Damage:
        """Where do the last records of the next three checkpoints stand now?"""
        signed = {c.head: c.size - 1 for c in [c for c in self.checkpoints if c.size > self.number][:3]}
        if not signed:
            kind = "the record was changed, or the one before it with its hash (no checkpoint covers it)"
            return self._named(self.number, kind, "changed")
        for number, record in enumerate(self._onward(max(signed.values())), self.number):
            missing = signed.get(record.hash.hex(), number) - number
            if missing > 0:
                return self._removed(missing)
        return self._named(
            self.number, "the record was changed, or the one before it with its hash", "changed"
        )

    def _onward(self, until: int) -> Iterator[Stored]:
        """The records from here to number `until`, as they stand."""
        number = self.head.sequence + len(self.records)
        yield from self.records[self.place :]
        for path in self.later:
            if number > until:
                return
            found = read_segment(path, lenient=True).records
            number += len(found)
            yield from found

    def _regions(self) -> tuple[Region, Region | None]:
        """The region of the broken record, and the next one with an intact header."""
        regions = self.segment.regions
        at = max(i for i, region in enumerate(regions) if region.count <= self.place)
        return regions[at], next((r for r in regions[at + 1 :] if r.header is not None), None)

    def _surplus(self) -> int:
        """Records that stand here beyond what the headers say; negative where some are missing."""
        here, after = self._regions()
        start = self.head.sequence
        if here.header is not None:
            if self.place == here.count and self.number != here.header.sequence:
                return self.number - here.header.sequence
            if len(here.records) != here.header.records:
                return len(here.records) - here.header.records
        if after is not None and after.header is not None:
            return start + after.count - after.header.sequence
        if self.later:
            return start + len(self.records) - read_segment(self.later[0], lenient=True).head.sequence
        return 0

    def _swapped(self, distance: int, how: str) -> Damage:
        kind = (
            f"the record that belongs here stands {distance} places further on: they were reordered ({how})"
        )
        return self._named(self.number, kind, "reordered")

    def _inserted(self, number: int, count: int, path: Path | None = None) -> Damage:
        what = "the record was" if count == 1 else f"{count} records were"
        return self._named(number, f"{what} inserted", "inserted", path)

    def _removed(self, count: int) -> Damage:
        what = "the record was" if count == 1 else f"{count} records were"
        return self._named(self.number, f"{what} removed", "removed")


def _broken_frame(segment: Segment, first: int, place: int) -> Damage | None:
    """What is wrong between the records before `place`, all of which follow one another."""
    for region in segment.regions:
        number, header = first + region.count, region.header
        end = number + len(region.records)
        if region.count > place:
            return None
        if header is None and region.lack > 0 and region is segment.regions[-1]:
            return Damage(segment.path, number, "the segment is cut off here", "truncated")
        if header is None or (header.own != header.at and header.sequence == number):
            return _reframed(segment.path, number, region.lack, "the header of the batch that begins here")
        if first + place < end:
            return None
        if header.sequence != number and region.count < place:
            return Damage(segment.path, number, "the header of the batch that begins here was changed")
        if region.lack > 0 and region is segment.regions[-1]:
            return Damage(segment.path, end, "the segment is cut off here", "truncated")
        if region.rest:
            return _reframed(segment.path, end, region.lack, "the record or its length")
    return None


def _reframed(path: Path, number: int, lack: int, what: str) -> Damage:
    if lack > 0:
        return Damage(path, number, f"{lack} bytes are missing from here on", "removed")
    if lack < 0:
        return Damage(path, number, f"{-lack} bytes were inserted from here on", "inserted")
    return Damage(path, number, f"{what} was changed", "changed")


def _first_broken(records: Sequence[Stored], before: bytes) -> int | None:
    for place, record in enumerate(records):
        if not record.follows(before):
            return place
        before = record.hash
    return None


def read_segment(path: Path, *, lenient: bool = False) -> Segment:
    """A segment, read without believing its numbers. Raises `Damage` for its header, unless `lenient`."""
    data = content_of(path)
    try:
        _, _, head = read_segment_header(path, memoryview(data))
    except Damage:
        if not lenient:
            raise
        head = Head()
    return Segment(path, head, list(_regions_of(data)))


def _regions_of(data: bytes) -> Iterator[Region]:
    """The regions of a segment. Where a header was changed, its batch is taken to begin behind it."""
    view, headers = memoryview(data), list(_headers(data))
    ends = [header.at for header in headers[1:]] + [len(data)] * bool(headers)
    count = 0
    if not headers or headers[0].at > SEGMENT_HEADER.size:
        region = _unreadable(view, SEGMENT_HEADER.size, headers[:1], count)
        yield region
        count += len(region.records)
    for place, (header, end) in enumerate(zip(headers, ends, strict=True), 1):
        start, limit = header.at, header.end - header.own
        records, stop = records_between(view, start + BATCH_HEADER.size, end)
        rest = torn_bytes(view[:end], min(stop, end))
        complete = stop - start == limit and len(records) == header.records
        used = min(end, start + limit) if end == len(data) and rest <= limit - (stop - start) else end
        yield Region(
            header, count, records, 0 if complete else rest, 0 if complete else limit - (used - start)
        )
        count += len(records)
        if complete and rest:
            # The next batch is there, but its header cannot be read.
            region = _unreadable(view, stop, headers[place : place + 1], count)
            yield region
            count += len(region.records)


def _unreadable(data: memoryview, start: int, following: Sequence[Header], count: int) -> Region:
    """The region behind a header that cannot be read, up to the header that follows, if one does."""
    behind = start + BATCH_HEADER.size
    end = following[0].at if following else len(data)
    lack = following[0].own - following[0].at if following else max(0, behind - end)
    records, stop = records_between(data, behind, end)
    return Region(None, count, records, torn_bytes(data[:end], min(stop, end)), lack)


def _headers(data: bytes) -> Iterator[Header]:
    """Every header whose checksum is right."""
    at = data.find(BATCH_MAGIC, SEGMENT_HEADER.size)
    while at >= 0:
        raw = data[at : at + BATCH_HEADER.size]
        if len(raw) == BATCH_HEADER.size:
            _, crc, _, records, sequence, own, length, _ = BATCH_HEADER.unpack(raw)
            if crc == crc32(raw[8:]):
                yield Header(at, own, sequence, records, own + BATCH_HEADER.size + length)
        at = data.find(BATCH_MAGIC, at + 1)


def records_between(data: memoryview, at: int, end: int) -> tuple[list[Stored], int]:
    """Records from `at` on as far as they fit, and where they stop."""
    found = []
    while at + LENGTH.size + HASH_BYTES <= end:
        (length,) = LENGTH.unpack_from(data, at)
        body = at + LENGTH.size
        stored = body + length
        if length > RECORD_BYTES_MAX or stored + HASH_BYTES > end:
            break
        hash = bytes(data[stored : stored + HASH_BYTES])
        if not length and not any(hash):
            break  # allocated ahead
        found.append(Stored(data[body:stored], hash))
        at = stored + HASH_BYTES
    return found, at
