"""Online: state bytes -> one float32 vector per transaction, in the model's order.

The states are those from before the transaction; the reader adds the transaction itself where a feature
counts it. Everything that can be looked up once is looked up when the evaluator is made; per batch one
compiled kernel parses all states in place.
"""

from collections.abc import Mapping, Sequence
from math import nan
from struct import Struct
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.catalogue import Catalogue
from features.event import Identity
from features.feature import Feature
from features.formula import Floats, Ints, apply_row, gap_seconds, program, speed_kmh
from features.kernel import float64, int64, kernel, uint64
from features.measure import Scalar
from features.plan import Plan, plan
from features.state import FORMAT, RING, DamagedState
from features.tier import DAY, HOUR, MINUTE

HEADER: Final = 20 + 8 * RING
"""Bytes before a state's heads."""
_PAD: Final = b"\0" * 8

Bytes = NDArray[np.uint8]


class Row(NamedTuple):
    """One transaction to evaluate.

    `values`: validated fields. `states`: bytes of each present entity's state as it was before, `None` if it
    had none; an entity that is missing here could not be read, so that its features are absent.
    `repeated`: entities whose state already holds this transaction (a claim that was taken over): it is not
    added again, and gap, speed and novelty, which need the state before it, are absent.
    """

    time_ms: int
    values: Mapping[str, Scalar]
    identity: Identity
    states: Mapping[str, bytes | None]
    repeated: Mapping[str, bool]


class Evaluator:
    """Vectors of a catalogue's features, or of a model's ordered list of them.

    Raises `SchemaError` if a feature needs state that the catalogue does not keep.
    """

    def __init__(self, catalogue: Catalogue, features: tuple[Feature, ...] | None = None) -> None:
        self.catalogue = catalogue
        self.features = catalogue.features if features is None else features
        self.plan: Plan = plan(catalogue, self.features)
        self.program = program(self.plan.nodes, self.plan.outputs)
        self._integers = Struct(f"<{self.plan.width}q")
        self._reals = Struct(f"<{len(self.plan.readers)}d")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in the vector's order."""
        return tuple(f.name for f in self.features)

    def vectors(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """float32 `[rows, features]`, NaN where absent. Raises `DamagedState`."""
        if not rows:
            return np.empty((0, len(self.features)), np.float32)
        parts: list[bytes] = []
        integers: list[bytes] = []
        reals: list[bytes] = []
        at = 0
        for row in rows:
            at = self._pack(row, at, parts, integers, reals)
        parts.append(_PAD)
        made = self.plan
        out = np.empty((len(rows), len(self.features)), np.float32)
        damaged = _evaluate(
            np.frombuffer(b"".join(parts), np.uint8),
            np.frombuffer(b"".join(integers), np.int64).reshape(len(rows), made.width),
            np.frombuffer(b"".join(reals) + _PAD, np.float64),
            made.sections,
            made.shapes,
            made.windows,
            made.tiles,
            made.wheres,
            made.heads,
            made.seen,
            made.owns,
            self.program.codes,
            self.program.operands,
            self.program.scales,
            self.program.outputs,
            out,
        )
        if damaged >= 0:
            number, entity = divmod(damaged, len(made.entities))
            raise DamagedState(f"row {number}: the state of {made.entities[entity]} has another layout")
        return out

    def warm_up(self) -> None:
        """Compile or load the kernels, so that the first decision does not wait for them."""
        self.vectors([Row(1, {}, Identity({}, {}), {}, {})])

    def _pack(self, row: Row, at: int, parts: list[bytes], integers: list[bytes], reals: list[bytes]) -> int:
        """Append one row's inputs; where the next row's states begin. Order: `Plan.width`."""
        made = self.plan
        values, identity, time_ms = row.values, row.identity, row.time_ms
        packed = [time_ms, identity.marks.get("place", 0)]
        for entity in made.entities:
            state = row.states.get(entity)
            if entity not in identity.entities or entity not in row.states:
                packed += (0, at, 0)
                continue
            length = 0 if state is None else len(state)
            packed += (2 if row.repeated.get(entity) else 1, at, length)
            if state is not None:
                parts.append(state)
                at += length
        for field in made.numbers:
            number = values.get(field)
            packed.append(-1 if number is None else int(number))
        for where in made.filters:
            packed.append(values.get(where.field) in where.values)
        for field in made.marks:
            packed.append(identity.marks.get(field, 0))
        integers.append(self._integers.pack(*packed))
        reals.append(self._reals.pack(*[read(values, time_ms) for read in made.readers]))
        return at


@kernel
def _u32(buffer: Bytes, at: int) -> Any:
    low = int64(buffer[at]) | int64(buffer[at + 1]) << 8
    return low | int64(buffer[at + 2]) << 16 | int64(buffer[at + 3]) << 24


@kernel
def _u64(buffer: Bytes, at: int) -> Any:
    return uint64(_u32(buffer, at)) | uint64(_u32(buffer, at + 4)) << uint64(32)


@kernel
def _parse(buffer: Bytes, at: int, length: int, shape: Ints, place: Ints) -> bool:
    """Where the sections of one state lie; False if its size is another than its layout says.

    `shape`: a row of `Plan.shapes`. `place`: heads, then (offset, count) of each tier and map.
    """
    place[:] = 0
    if length == 0:
        return True
    sections = 3 + shape[4]
    counts = at + HEADER + 8 * shape[0]
    begin = counts + 4 * sections
    if begin > at + length or _u32(buffer, at) != FORMAT:
        return False
    place[0] = at + HEADER
    for section in range(sections):
        count = _u32(buffer, counts + 4 * section)
        place[1 + 2 * section] = begin
        place[2 + 2 * section] = count
        begin += count * (4 + 8 * shape[1 + section] if section < 3 else 16)
    return bool(begin == at + length)


@kernel
def _tile_at(buffer: Bytes, begin: int, count: int, stride: int, tile: int) -> int:
    """Offset of the first of `count` records whose tile is at least `tile`, or of the section's end."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if _u32(buffer, begin + middle * stride) < tile:
            low = middle + 1
        else:
            high = middle
    return begin + low * stride


@kernel
def _span(time_ms: int, window_ms: int, delay_ms: int, pieces: Ints) -> Any:
    """`tier.pieces`: `[first tile, tile after the last]` of minute, hour, day; the window's start (ms)."""
    at = time_ms - delay_ms
    own = 2 if window_ms >= 6 * DAY else (1 if window_ms >= 6 * HOUR else 0)
    start_ms = int64(0)
    begin = int64(0)
    for tier in range(2, -1, -1):
        length = DAY if tier == 2 else (HOUR if tier == 1 else MINUTE)
        pieces[2 * tier], pieces[2 * tier + 1] = 0, 0
        if tier > own:
            continue
        if tier == own:
            start_ms = (at - window_ms) // length * length
            begin = start_ms
        stop = at // length * length + (MINUTE if tier == 0 else 0)
        if stop > begin:
            pieces[2 * tier], pieces[2 * tier + 1] = begin // length, stop // length
            begin = stop
    return start_ms


@kernel
def _find(buffer: Bytes, shape: Ints, place: Ints, pieces: Ints) -> None:
    """Replace the tile numbers in `pieces` by offsets of their records; empty where there are none."""
    for tier in range(3):
        begin, count, stride = place[1 + 2 * tier], place[2 + 2 * tier], 4 + 8 * shape[1 + tier]
        first, last = pieces[2 * tier], pieces[2 * tier + 1]
        if count > 0 and last > first:
            pieces[2 * tier] = _tile_at(buffer, begin, count, stride, first)
            pieces[2 * tier + 1] = _tile_at(buffer, begin, count, stride, last)
        else:
            pieces[2 * tier], pieces[2 * tier + 1] = 0, 0


@kernel
def _delta(tile: Ints, row: Ints, wheres: Ints, sections: Ints) -> Any:
    """What the transaction itself adds to a measure. `tile`: a row of `Plan.tiles`."""
    for i in range(tile[6], tile[7]):
        if row[sections[1] + wheres[i]] == 0:
            return uint64(0)
    if tile[4] < 0:
        return uint64(1)
    number = row[sections[0] + tile[4]]
    if number < 0:
        return uint64(0)
    if tile[5] == 2:
        return uint64(number) * uint64(number)
    return uint64(number + 1 if tile[5] == 3 else number)


@kernel
def _total(buffer: Bytes, tile: Ints, shape: Ints, pieces: Ints, own: Any) -> float:
    """One measure over the window's tiles and the transaction itself."""
    total = own
    largest = tile[5] == 3
    for tier in range(3):
        slot, stride = 4 + 8 * tile[1 + tier], 4 + 8 * shape[1 + tier]
        for at in range(pieces[2 * tier], pieces[2 * tier + 1], stride):
            number = _u64(buffer, at + slot)
            total = max(total, number) if largest else total + number
    if not largest:
        return float(float64(total))
    return float(float64(total - uint64(1))) if total > uint64(0) else nan


@kernel
def _seen_term(buffer: Bytes, term: Ints, begin: int, count: int, start_ms: int, own: int) -> float:
    """Novelty or distinct values of one map since `start_ms`. `own`: the transaction's mark, 0 if none."""
    known, total = False, 0
    for at in range(begin + 16 * (count - 1), begin - 1, -16):
        if int64(_u64(buffer, at + 8)) < start_ms:
            break
        total += 1
        known = known or int64(_u64(buffer, at)) == own
    if term[3] == 0:
        return 0.0 if known else 1.0
    return float(total + 1) if own != 0 and not known else float(total)


@kernel
def _evaluate(
    buffer: Bytes,
    rows: Ints,
    reals: Floats,
    sections: Ints,
    shapes: Ints,
    windows: Ints,
    tiles: Ints,
    wheres: Ints,
    heads: Ints,
    seen: Ints,
    owns: Ints,
    codes: Ints,
    operands: Ints,
    scales: Floats,
    outputs: Ints,
    out: NDArray[np.float32],
) -> int:
    """All rows; -1, or `row * entities + entity` of the first damaged state."""
    entities = shapes.shape[0]
    maps = 0
    for e in range(entities):
        maps = max(maps, shapes[e, 4])
    values = np.empty(codes.shape[0], np.float64)
    places = np.zeros((entities, 7 + 2 * maps), np.int64)
    pieces = np.zeros(6, np.int64)
    for r in range(rows.shape[0]):
        row = rows[r]
        time_ms = row[0]
        for e in range(entities):
            if not _parse(buffer, row[3 + 3 * e], row[4 + 3 * e], shapes[e], places[e]):
                return int(r * entities + e)
        for w in range(windows.shape[0]):
            e = windows[w, 0]
            kind = row[2 + 3 * e]
            if kind != 0:
                _span(time_ms, windows[w, 1], windows[w, 2], pieces)
                _find(buffer, shapes[e], places[e], pieces)
            counted = kind == 1 and windows[w, 2] == 0
            for i in range(windows[w, 3], windows[w, 4]):
                own = uint64(0)
                if counted and tiles[i, 8] == 1:
                    own = _delta(tiles[i], row, wheres, sections)
                values[tiles[i, 0]] = _total(buffer, tiles[i], shapes[e], pieces, own) if kind != 0 else nan
        for i in range(heads.shape[0]):
            e = heads[i, 1]
            last = int64(0)
            if row[2 + 3 * e] == 1 and places[e, 0] > 0:
                last = int64(_u64(buffer, places[e, 0] + 8 * heads[i, 2]))
            gap = gap_seconds(time_ms, last) if heads[i, 3] == 0 else speed_kmh(time_ms, row[1], last)
            values[heads[i, 0]] = gap
        for i in range(seen.shape[0]):
            e, own_mark = seen[i, 1], row[sections[2] + seen[i, 4]]
            kind = row[2 + 3 * e]
            if kind == 0 or (seen[i, 3] == 0 and (kind == 2 or own_mark == 0)):
                values[seen[i, 0]] = nan
                continue
            start_ms = _span(time_ms, seen[i, 5], 0, pieces)
            begin, count = places[e, 7 + 2 * seen[i, 2]], places[e, 8 + 2 * seen[i, 2]]
            values[seen[i, 0]] = _seen_term(buffer, seen[i], begin, count, start_ms, own_mark)
        for i in range(owns.shape[0]):
            values[owns[i]] = reals[r * owns.shape[0] + i]
        apply_row(codes, operands, scales, values)
        for f in range(outputs.shape[0]):
            out[r, f] = values[outputs[f]]
    return -1
