"""Aggregated rows -> one block of Redis commands, built as arrays.

A row of the grouping becomes records of the merge function's argument (see `features.library`); the records
of one entity are concatenated into one call::

    *5 FCALL <merge> 1 {T:entity:id}:s:<state> | tile | head | tile | entry | ...

Only the last row of a slot in a batch counts: absolute values grow, so it holds what the earlier ones do.
"""

from binascii import crc_hqx
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from features.catalogue import Catalogue
from features.library import Keys, function_name
from features.sql import columns, sections

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]
ID_LENGTH = 32
_DIGITS_MAX = 9


@dataclass(frozen=True, slots=True)
class Shape:
    """How the rows of one section become records.

    `entity`: index of the entity. `tile`: first byte of its tiles and the columns of their slots, or `None`.
    `heads`: first byte and column of each head. `seen`: first byte of the map's entries, or `None`.
    """

    entity: int
    tile: tuple[int, tuple[int, ...]] | None
    heads: tuple[tuple[int, int], ...]
    seen: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a catalogue that encoding needs; plain values, so that it travels to the workers.

    `shapes`: by code. `before`, `after`: the parts of an entity's call before and after the 32-character
    pseudonym (up to the length of the argument). `tags`: the key's hash tag before the pseudonym.
    `columns`: number of slot columns of a row. `position`: the column of a position's next offset; the
    event time follows it.
    """

    shapes: Mapping[int, Shape]
    before: tuple[bytes, ...]
    after: tuple[bytes, ...]
    tags: tuple[bytes, ...]
    columns: int
    position: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the grouping: `code` [n], `words` [n, 4] (the pseudonym's 32 bytes as u64), `key` [n],
    `slots` [n, columns]."""

    code: Numbers
    words: np.ndarray[Any, np.dtype[np.uint64]]
    key: Numbers
    slots: Numbers

    def take(self, index: np.ndarray[Any, Any]) -> "Rows":
        """The rows at `index` (a mask or positions)."""
        return Rows(self.code[index], self.words[index], self.key[index], self.slots[index])

    def __len__(self) -> int:
        return len(self.code)


@dataclass(frozen=True, slots=True)
class Call:
    """A sorted batch: `rows` by entity and pseudonym, `first` marks each entity's first row."""

    rows: Rows
    entity: Numbers
    first: np.ndarray[Any, np.dtype[np.bool_]]

    @property
    def starts(self) -> Numbers:
        """Positions of the first rows: one per call."""
        return np.flatnonzero(self.first)


def plan(catalogue: Catalogue, tenant: str) -> Plan:
    """The encoding of this catalogue's rows under this tenant's keys."""
    keys = Keys(tenant, catalogue.state_fingerprint)
    names = catalogue.entities
    order = [name for group in columns(catalogue) for name in group]
    shapes = {}
    for section in sections(catalogue):
        layout = catalogue.layouts[section.entity]
        maps = len(layout.maps)
        heads = tuple((3 + maps + h, order.index(c)) for h, c in enumerate(section.heads))
        tile = None if section.tier is None else (section.tier, tuple(order.index(c) for c in section.slots))
        seen = None if section.map is None else (3 + section.map, order.index("x0"))
        shapes[section.code] = Shape(names.index(section.entity), tile, heads, seen)
    before, after, tags = [], [], []
    for name in names:
        function = function_name(catalogue, "merge", name).encode()
        left, right = keys.state(name, "\0").encode().split(b"\0")
        length = len(left) + ID_LENGTH + len(right)
        call = b"*5\r\n$5\r\nFCALL\r\n$%d\r\n%b\r\n$1\r\n1\r\n" % (len(function), function)
        before.append(call + b"$%d\r\n" % length + left)
        after.append(right + b"\r\n$")
        tags.append(left[1:])
    return Plan(shapes, tuple(before), tuple(after), tuple(tags), len(order), order.index("x0"))


def words(ids: Sequence[str]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Pseudonyms as four u64 each. Raises `ValueError` for one that has not 32 ASCII characters."""
    packed = np.array(ids, dtype="S")
    if packed.itemsize != ID_LENGTH or (packed.view(np.uint8).reshape(-1, ID_LENGTH)[:, -1] == 0).any():
        raise ValueError(f"a pseudonym has not {ID_LENGTH} characters")
    return packed.view(np.uint64).reshape(-1, 4)


def arrange(plan: Plan, rows: Rows) -> Call:
    """Sort by entity, drop the rows that a later one of the same slot replaces."""
    of = np.full(max(plan.shapes) + 1, -1, dtype=np.int64)
    for code, shape in plan.shapes.items():
        of[code] = shape.entity
    w = rows.words
    entity = of[rows.code]
    order = np.lexsort((rows.key, rows.code, w[:, 3], w[:, 2], w[:, 1], w[:, 0], entity))
    rows, entity = rows.take(order), entity[order]
    w = rows.words
    new = np.ones(len(rows), dtype=np.bool_)
    new[1:] = (w[1:] != w[:-1]).any(axis=1) | (entity[1:] != entity[:-1])
    last = np.ones(len(rows), dtype=np.bool_)
    last[:-1] = new[1:] | (rows.code[1:] != rows.code[:-1]) | (rows.key[1:] != rows.key[:-1])
    # Lexsort is stable: of equal slots the last is the newest. A dropped first row hands on its mark.
    group = np.cumsum(new)[last]
    kept = rows.take(last)
    first = np.ones(len(kept), dtype=np.bool_)
    first[1:] = group[1:] != group[:-1]
    return Call(kept, entity[last], first)


def encode(plan: Plan, call: Call) -> tuple[bytes, int]:
    """The block of commands and their number."""
    if not len(call.rows):
        return b"", 0
    records = _records(plan, call.rows)
    size = np.zeros(len(call.rows), dtype=np.int64)
    for at, matrix in records:
        size[at] += matrix.shape[1]
    starts = call.starts
    argument = np.add.reduceat(size, starts)
    entity = call.entity[starts]
    full = argument > 0
    digits = _digits(argument)
    before = np.array([len(b) for b in plan.before])[entity]
    after = np.array([len(a) for a in plan.after])[entity]
    head = np.where(full, before + ID_LENGTH + after + digits + 2, 0)
    total = head + argument + np.where(full, 2, 0)
    begin = np.cumsum(total) - total
    out = np.empty(int(total.sum()), dtype=np.uint8)
    _write_heads(plan, call, out, begin[full], starts[full], entity[full], argument[full], digits[full])
    group = np.cumsum(call.first) - 1
    within = np.cumsum(size) - size
    place = (begin + head - within[starts])[group] + within
    for at, matrix in records:
        out[place[at][:, None] + np.arange(matrix.shape[1])] = matrix
        place[at] += matrix.shape[1]
    end = (begin + total)[full]
    out[end - 2] = 13
    out[end - 1] = 10
    return out.tobytes(), int(full.sum())


def _records(plan: Plan, rows: Rows) -> list[tuple[Numbers, Bytes]]:
    """`(positions, bytes [n, size])` of every kind of record; a row may have several."""
    found: list[tuple[Numbers, Bytes]] = []
    for code in np.unique(rows.code):
        shape = plan.shapes[int(code)]
        at = np.flatnonzero(rows.code == code)
        if shape.tile is not None:
            number, slots = shape.tile
            values = rows.slots[at][:, slots]
            some = (values != 0).any(axis=1)
            kind = np.dtype([("section", "u1"), ("tile", "<u4"), ("slots", "<u8", (len(slots),))])
            tiles = np.empty(int(some.sum()), dtype=kind)
            tiles["section"], tiles["tile"], tiles["slots"] = number, rows.key[at][some], values[some]
            found.append((at[some], _bytes(tiles)))
        if shape.seen is not None:
            number, column = shape.seen
            entries = np.empty(len(at), dtype=[("section", "u1"), ("mark", "<u8"), ("last", "<u8")])
            entries["section"], entries["mark"] = number, rows.key[at]
            entries["last"] = rows.slots[at, column]
            found.append((at, _bytes(entries)))
        for number, column in shape.heads:
            values = rows.slots[at, column]
            some = values != 0
            heads = np.empty(int(some.sum()), dtype=[("section", "u1"), ("value", "<u8")])
            heads["section"], heads["value"] = number, values[some]
            found.append((at[some], _bytes(heads)))
    return found


def _bytes(records: np.ndarray[Any, Any]) -> Bytes:
    return records.view(np.uint8).reshape(len(records), records.dtype.itemsize)


def _digits(numbers: Numbers) -> Numbers:
    return np.searchsorted(10 ** np.arange(1, _DIGITS_MAX), numbers, side="right") + 1


def _write_heads(
    plan: Plan,
    call: Call,
    out: Bytes,
    begin: Numbers,
    starts: Numbers,
    entity: Numbers,
    argument: Numbers,
    digits: Numbers,
) -> None:
    """The calls up to their arguments: constant parts, pseudonym, length in digits."""
    ids = np.ascontiguousarray(call.rows.words[starts]).view(np.uint8).reshape(-1, ID_LENGTH)
    for number, (left, right) in enumerate(zip(plan.before, plan.after, strict=True)):
        for count in range(1, _DIGITS_MAX):
            mine = np.flatnonzero((entity == number) & (digits == count))
            if not len(mine):
                continue
            middle = len(left) + ID_LENGTH + len(right)
            matrix = np.empty((len(mine), middle + count + 2), dtype=np.uint8)
            matrix[:, : len(left)] = np.frombuffer(left, dtype=np.uint8)
            matrix[:, len(left) : len(left) + ID_LENGTH] = ids[mine]
            matrix[:, len(left) + ID_LENGTH : middle] = np.frombuffer(right, dtype=np.uint8)
            for digit in range(count):
                matrix[:, middle + digit] = argument[mine] // 10 ** (count - 1 - digit) % 10 + 48
            matrix[:, -2:] = (13, 10)
            out[begin[mine][:, None] + np.arange(matrix.shape[1])] = matrix


def _crc_table() -> np.ndarray[Any, np.dtype[np.uint16]]:
    table = np.arange(256, dtype=np.uint16) << np.uint16(8)
    for _ in range(8):
        carry = (table & 0x8000) != 0
        table = (table << np.uint16(1)) ^ np.where(carry, np.uint16(0x1021), np.uint16(0))
    return table


_CRC = _crc_table()


def slots(plan: Plan, call: Call) -> Numbers:
    """Redis Cluster's slot of each call's key (CRC16 XMODEM of the hash tag, modulo 16384)."""
    starts = call.starts
    ids = np.ascontiguousarray(call.rows.words[starts]).view(np.uint8).reshape(-1, ID_LENGTH)
    seeds = np.array([crc_hqx(tag, 0) for tag in plan.tags], dtype=np.uint16)
    crc = seeds[call.entity[starts]]
    for column in range(ID_LENGTH):
        crc = (crc << np.uint16(8)) ^ _CRC[(crc >> np.uint16(8)) ^ ids[:, column]]
    return (crc & np.uint16(16383)).astype(np.int64)


def slot(key: str) -> int:
    """Redis Cluster's slot of one key with a hash tag."""
    return crc_hqx(key[key.index("{") + 1 : key.index("}")].encode(), 0) % 16_384


def share(call: Call, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> Call:
    """The calls that `chosen` (one per call) marks."""
    mine = chosen[np.cumsum(call.first) - 1]
    return Call(call.rows.take(mine), call.entity[mine], call.first[mine])
