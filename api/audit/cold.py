"""Cold segments: compressed when everything in them is in Kafka and under a signed, anchored checkpoint.

A writer's newest segments stay as they are. The compressed form is written, synced, read back and compared
before the first is removed: a death in between leaves both, and the next run goes on.
"""

import gzip
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from api.audit.checkpoint import Checkpoint
from api.journal import Mark
from api.segment import SEGMENT_HEADER, Damage, name_of, read_segment_header, segments_in
from api.segment_file import compressed, decompress, open_segment

# The one that is written, and those that a writer or whoever takes a claim over looks back at.
KEPT: Final = 2


@dataclass(frozen=True, slots=True)
class Cooled:
    """What one run did to a journal."""

    segments: int
    bytes_before: int
    bytes_after: int


def cool(directory: Path, checkpoints: Sequence[Checkpoint]) -> Cooled:
    """Compress what may be of one journal. `checkpoints`: sound ones, oldest first.

    Raises `Damage` for a segment that cannot be read, `OSError`.
    """
    done = before = after = 0
    for path in eligible(directory, checkpoints):
        if not path.exists():
            continue
        before += path.stat().st_size
        after += _compress(path)
        done += 1
    return Cooled(done, before, after)


def eligible(directory: Path, checkpoints: Sequence[Checkpoint]) -> list[Path]:
    """Segments whose records are all published and anchored, but the newest ones. Raises `Damage`."""
    if not checkpoints:
        return []
    mark = Mark(directory)
    try:
        newest, shipped = mark.durable[0], mark.shipped
    finally:
        mark.close()
    covered = min(shipped, checkpoints[-1].size)
    # What no checkpoint ends behind, and what is new, stays.
    before = min(newest - KEPT, checkpoints[-1].segment)
    found = []
    for path, following in pairwise(segments_in(directory)):
        if path.name >= name_of(max(0, before)) or _first_of(following) > covered:
            break
        found.append(path)
    return found


def _first_of(path: Path) -> int:
    """Number of a segment's first record. Raises `Damage`."""
    file = open_segment(path)
    try:
        return read_segment_header(path, memoryview(os.pread(file, SEGMENT_HEADER.size, 0)))[2].sequence
    finally:
        os.close(file)


def _compress(path: Path) -> int:
    """Replace a segment by its compressed form; its size."""
    content = path.read_bytes()
    target = compressed(path)
    if not (target.is_file() and decompress(target.read_bytes()) == content):
        draft = path.with_name(f"{path.name}.draft")
        with draft.open("wb") as file:
            # No name, no time: the same segment gives the same file.
            with gzip.GzipFile("", "wb", 6, file, mtime=0) as stream:
                stream.write(content)
            file.flush()
            os.fsync(file.fileno())
        if decompress(draft.read_bytes()) != content:
            raise Damage(path, 0, "its compressed form does not read back; nothing was removed")
        os.replace(draft, target)
        _sync(path.parent)
    path.unlink()
    _sync(path.parent)
    return target.stat().st_size


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
