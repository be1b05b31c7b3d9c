"""Did an earlier attempt get as far as the journal? Asked when a claim is taken over.

A process that dies between its journal and its claims leaves records whose claims stay open. Deciding them
again would count them twice, so whoever takes such a claim over first looks at the newest batches of the
journals beside its own. Records older than those have their claims answered: a writer answers a batch's
claims before it appends the next one, or keeps what it could not answer in memory.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from api.journal import Mark
from api.record import decode_json, unpack
from api.segment import BATCH_HEADER, HASH_BYTES, LENGTH, SEGMENT_HEADER, Batch, batch_at, name_of

BATCHES = 64


class Attempts:
    """The newest records of the journals under `parent`, by claim key."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._known: dict[Path, tuple[int, dict[str, dict[str, Any]]]] = {}

    def find(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Records whose claim is among `keys`."""
        wanted = set(keys)
        found: dict[str, dict[str, Any]] = {}
        if not wanted or not self._parent.is_dir():
            return found
        for directory in sorted(self._parent.iterdir()):
            if (directory / "mark").exists():
                tail = self._tail(directory)
                found.update((key, tail[key]) for key in wanted & tail.keys())
        return found

    def _tail(self, directory: Path) -> dict[str, dict[str, Any]]:
        mark = Mark(directory)
        sequence, (segment, durable) = mark.sequence, mark.durable
        mark.close()
        known = self._known.get(directory)
        if known is not None and known[0] == sequence:
            return known[1]
        tail: dict[str, dict[str, Any]] = {}
        for number in (segment - 1, segment):
            path = directory / name_of(number)
            if path.exists():
                data = memoryview(path.read_bytes())
                for batch in _batches(data, durable if number == segment else len(data))[-BATCHES:]:
                    for body in _bodies(data, batch):
                        record = decode_json(unpack(body).payload)
                        tail[claim_key(record)] = record
        self._known[directory] = (sequence, tail)
        return tail


def claim_key(record: dict[str, Any]) -> str:
    """The claim that a record answers."""
    kind = record["type"]
    return f"{'tx' if kind in ('decision', 'abandoned') else kind}:{record['id']}"


def _batches(data: memoryview, end: int) -> list[Batch]:
    found, offset = [], SEGMENT_HEADER.size
    while offset < end and (batch := batch_at(data, offset)) is not None:
        found.append(batch)
        offset = batch.end
    return found


def _bodies(data: memoryview, batch: Batch) -> list[bytes]:
    found, at = [], batch.offset + BATCH_HEADER.size
    for _ in range(batch.records):
        (length,) = LENGTH.unpack_from(data, at)
        found.append(bytes(data[at + LENGTH.size : at + LENGTH.size + length]))
        at += LENGTH.size + length + HASH_BYTES
    return found
