"""Records as they lie in the journals of this host.

Did an earlier attempt get as far as the journal? Asked when a claim is taken over.

A process that dies between its journal and its claims leaves records whose claims stay open. Deciding them
again would count them twice, so whoever takes such a claim over first looks at the newest batches of the
journals beside its own. Records older than those have their claims answered: a writer sends a batch's
answers before it appends the next one, and keeps in memory what the store did not confirm; one that starts
where another died answers what that one left open, before its own records push the old ones out of sight.

A record whose place is known, from its claim's receipt, is read there however old it is.
"""

import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from api.journal import durable_of
from api.record import Envelope, Kind, Location, decode_json, receipt, unpack
from api.segment import (
    HASH_BYTES,
    SEGMENT_HEADER,
    Batch,
    Damage,
    Head,
    Record,
    batch_at,
    name_of,
    read_segment_header,
    records_of,
)
from api.segment_file import open_segment

BATCHES = 64
INHERITED_BATCHES = 1_024
_PREFIXES = {Kind.LABEL: "label", Kind.EVENT: "event", Kind.AUDIT: "audit", Kind.ALERT: "alert"}


class Found(NamedTuple):
    """A record, still encoded, and where it lies."""

    payload: bytes
    location: Location

    @property
    def record(self) -> dict[str, Any]:
        """The record."""
        found: dict[str, Any] = decode_json(self.payload)
        return found

    @property
    def receipt(self) -> bytes:
        """What its claim keeps of it."""
        return receipt(self.record, self.location)


class Attempts:
    """Records of the journals under `parent`, by the claims that they answer."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent

    def find(self, keys: Iterable[str]) -> dict[str, Found]:
        """The newest records whose claim is among `keys`."""
        wanted = set(keys)
        found: dict[str, Found] = {}
        if not wanted or not self._parent.is_dir():
            return found
        for mark in sorted(self._parent.glob("*/mark")):
            found |= {key: one for key, one in _newest(mark, BATCHES) if key in wanted}
        return found

    def inherited(self, worker: str) -> dict[str, Found]:
        """The last records of a worker's journal."""
        mark = self._parent / worker / "mark"
        return dict(_newest(mark, INHERITED_BATCHES)) if mark.exists() else {}

    def read(self, key: str, location: Location) -> dict[str, Any] | None:
        """The record of this claim that lies there; `None` where it does not, as on any host but its own."""
        path = self._parent / location.journal / name_of(location.segment)
        try:
            file = open_segment(path)
        except FileNotFoundError:
            return None
        found: dict[str, Found] = {}
        try:
            if os.fstat(file).st_size > location.offset:
                with (
                    mmap.mmap(file, 0, access=mmap.ACCESS_READ) as mapped,
                    memoryview(mapped) as data,
                ):
                    batch = batch_at(data, location.offset)
                    found = dict(_found(path, data, batch)) if batch is not None else {}
        finally:
            os.close(file)
        return found[key].record if key in found else None


def _newest(mark: Path, batches: int) -> Iterator[tuple[str, Found]]:
    """Claims and records of the newest whole batches of the journal that has this mark, those included that
    were written but not yet called durable. Of each of its last segments that many: never too few."""
    segment, _ = durable_of(mark.read_bytes())
    # One more than the mark says: its writer may have died before it could say so.
    for number in (segment - 1, segment, segment + 1):
        path = mark.parent / name_of(number)
        if number < 1 or not path.exists():
            continue
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as data,
        ):
            for batch in _batches(data)[-batches:]:
                yield from _found(path, data, batch)


def _found(path: Path, data: memoryview, batch: Batch) -> Iterator[tuple[str, Found]]:
    """The batch's records, by the claims that they answer."""
    location = Location(path.parent.name, int(path.stem), batch.offset)
    for record in _records(path, data, batch):
        envelope = unpack(record.body)
        yield _key_of(envelope), Found(envelope.payload, location)


def _records(path: Path, data: memoryview, batch: Batch) -> list[Record]:
    """The batch's records; none if it is torn."""
    if batch.offset == SEGMENT_HEADER.size:
        before = read_segment_header(path, data)[2].hash
    else:
        before = bytes(data[batch.offset - HASH_BYTES : batch.offset])
    try:
        return list(records_of(path, data, batch, Head(batch.sequence, before)))
    except Damage:
        return []


def _key_of(envelope: Envelope) -> str:
    """The claim that a record answers, without decoding the record: its own id comes before any other."""
    at = envelope.payload.index(b'"id":"') + 6
    raw = envelope.payload[at : envelope.payload.index(b'"', at)]
    if b"\\" in raw:
        record = decode_json(envelope.payload)
        return claim_key(record["type"], record["id"])
    prefix = _PREFIXES.get(envelope.kind, "tx")
    return f"{prefix}:{raw.decode()}"


def claim_key(kind: str, id_: str) -> str:
    """The claim that a record of this type and id answers."""
    return f"{'tx' if kind in ('decision', 'abandoned') else kind}:{id_}"


def _batches(data: memoryview) -> list[Batch]:
    found, offset = [], SEGMENT_HEADER.size
    while (batch := batch_at(data, offset)) is not None:
        found.append(batch)
        offset = batch.end
    return found
