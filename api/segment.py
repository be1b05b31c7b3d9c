"""The byte layout of a journal segment: a header, then batches of hash-chained records.

All numbers little endian::

    segment   68 bytes: magic "CORDONJ1" | u32 format | u32 epoch | u64 segment | u64 first sequence
                        | 32 bytes: hash of the record before | u32 crc of what stands before
    batch     40 bytes: magic "CJB1" | u32 crc of the rest | u32 epoch | u32 records | u64 first sequence
                        | u64 own offset | u32 body length | u32 zero
    record    u32 length | body | 32 bytes SHA-256(hash of the record before + body)

A batch is what one `fdatasync` made durable. The next one is written only afterwards, so a whole later
batch proves that a damaged one had been durable: that is tampering or a broken disk, not a torn tail.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from api.segment_file import SUFFIX

FORMAT = 1
SEGMENT_MAGIC = b"CORDONJ1"
BATCH_MAGIC = b"CJB1"
SEGMENT_HEADER = struct.Struct("<8sIIQQ32sI")
BATCH_HEADER = struct.Struct("<4sIIIQQII")
LENGTH = struct.Struct("<I")
HASH_BYTES = 32
GENESIS = bytes(HASH_BYTES)
RECORD_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: the number the next record gets, and the hash it continues."""

    sequence: int = 0
    hash: bytes = GENESIS


@dataclass(frozen=True, slots=True)
class Record:
    """One journalled record: its number in the chain, its bytes, its hash."""

    sequence: int
    body: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Header of one batch; `end` is the offset behind its last record."""

    epoch: int
    records: int
    sequence: int
    offset: int
    end: int


DamageSort = Literal[
    "changed",
    "removed",
    "inserted",
    "reordered",
    "truncated",
    "segment_deleted",
    "rewritten",  # a chain of its own, but not the one that was signed
]


class Damage(Exception):
    """Stored bytes are not what was written: stop, and look at the segment and record it names."""

    def __init__(self, segment: Path, sequence: int, kind: str, sort: DamageSort = "changed") -> None:
        super().__init__(f"segment {segment.name}, record {sequence}: {kind}")
        self.segment = segment
        self.sequence = sequence
        self.kind = kind
        self.sort = sort


def name_of(number: int) -> str:
    """File name of a segment."""
    return f"{number:010d}.segment"


def journal_name(directory: Path, first: bytes) -> str:
    """Name of a journal in topics and checkpoints: its directory's, and the hash of its first record."""
    return f"{directory.name}-{first.hex()[:16]}"


def segments_in(directory: Path) -> list[Path]:
    """The segments of a journal, oldest first, by their names; see segment_file.py for how they lie there."""
    found = [*directory.glob("[0-9]*.segment"), *directory.glob(f"[0-9]*.segment{SUFFIX}")]
    return sorted({path.with_name(path.name.removesuffix(SUFFIX)) for path in found})


def segment_header(number: int, epoch: int, head: Head) -> bytes:
    """First bytes of a segment that continues `head`."""
    bare = SEGMENT_HEADER.pack(SEGMENT_MAGIC, FORMAT, epoch, number, head.sequence, head.hash, 0)
    return bare[:-4] + LENGTH.pack(zlib.crc32(bare[:-4]))


def read_segment_header(path: Path, data: memoryview) -> tuple[int, int, Head]:
    """`(number, epoch, the chain's end that it continues)`; raises `Damage`."""
    if len(data) < SEGMENT_HEADER.size:
        raise Damage(path, 0, "the segment's header is cut off")
    magic, version, epoch, number, sequence, previous, crc = SEGMENT_HEADER.unpack_from(data)
    if magic != SEGMENT_MAGIC or crc != zlib.crc32(data[: SEGMENT_HEADER.size - 4]):
        raise Damage(path, sequence, "the segment's header was changed")
    if version != FORMAT:
        raise Damage(path, sequence, f"the segment has format {version}, this code reads {FORMAT}")
    return number, epoch, Head(sequence, previous)


def batch_bytes(bodies: Sequence[bytes]) -> int:
    """Size of one batch."""
    return BATCH_HEADER.size + sum(map(len, bodies)) + (LENGTH.size + HASH_BYTES) * len(bodies)


def encode_batch(bodies: Sequence[bytes], head: Head, epoch: int, offset: int) -> tuple[bytes, Head]:
    """Bytes of one batch that continues `head` at `offset`, and the head behind it."""
    digest, sha256, pack = head.hash, hashlib.sha256, LENGTH.pack
    parts: list[bytes] = [b""]
    for body in bodies:
        digest = sha256(digest + body).digest()
        parts += (pack(len(body)), body, digest)
    length = batch_bytes(bodies) - BATCH_HEADER.size
    bare = BATCH_HEADER.pack(BATCH_MAGIC, 0, epoch, len(bodies), head.sequence, offset, length, 0)
    parts[0] = bare[:4] + LENGTH.pack(zlib.crc32(bare[8:])) + bare[8:]
    return b"".join(parts), Head(head.sequence + len(bodies), digest)


def batch_at(data: memoryview, offset: int) -> Batch | None:
    """The batch whose intact header stands at `offset`, or `None`."""
    return read_batch_header(data[offset : offset + BATCH_HEADER.size], offset)


def read_batch_header(header: memoryview | bytes, offset: int) -> Batch | None:
    """The batch whose header these bytes are, if they stand at `offset` of their segment."""
    if len(header) < BATCH_HEADER.size:
        return None
    magic, crc, epoch, records, sequence, own, length, _ = BATCH_HEADER.unpack(header)
    if magic != BATCH_MAGIC or own != offset or crc != zlib.crc32(header[8:]):
        return None
    return Batch(epoch, records, sequence, offset, offset + BATCH_HEADER.size + length)


def later_batch(data: memoryview, offset: int, sequence: int) -> Batch | None:
    """An intact batch header behind `offset` that numbers its records above `sequence`."""
    raw = bytes(data[offset:])
    at = raw.find(BATCH_MAGIC)
    while at >= 0:
        found = batch_at(data, offset + at)
        if found is not None and found.sequence > sequence:
            return found
        at = raw.find(BATCH_MAGIC, at + 1)
    return None


def records_of(path: Path, data: memoryview, batch: Batch, head: Head) -> Iterator[Record]:
    """Its records, each checked against the chain; raises `Damage` at the first that is not right."""
    if batch.sequence != head.sequence:
        kind = "records are missing before it" if batch.sequence > head.sequence else "it stands here twice"
        raise Damage(path, head.sequence, f"the chain continues with record {batch.sequence}: {kind}")
    at, digest, sha256 = batch.offset + BATCH_HEADER.size, head.hash, hashlib.sha256
    for sequence in range(batch.sequence, batch.sequence + batch.records):
        if at + LENGTH.size > batch.end or batch.end > len(data):
            raise Damage(path, sequence, "the record is cut off")
        (length,) = LENGTH.unpack_from(data, at)
        at += LENGTH.size
        stored = at + length
        if stored + HASH_BYTES > batch.end:
            raise Damage(path, sequence, "the record's length was changed")
        body = bytes(data[at:stored])
        digest = sha256(digest + body).digest()
        at = stored + HASH_BYTES
        if digest != data[stored:at]:
            raise Damage(path, sequence, "the record or its place in the chain was changed")
        yield Record(sequence, body, digest)
    if at != batch.end:
        raise Damage(path, batch.sequence + batch.records, "the batch holds more than its records")
