"""The online state of one entity: a join-semilattice, and its one byte layout.

Little endian, no padding; `S_i` is the number of slots of tier i::

    u32 format | u64 n | u64 newest_ms | 4 x u64 ring | H x u64 heads
    3 x u32 tile counts | M x u32 map counts
    per tier, old to new:  count x ( u32 tile | S_i x u64 slots )
    per map, old to new:   count x ( u64 mark | u64 last_seen_ms )       ordered by (last_seen_ms, mark)

`n` counts observations (the running number). `newest_ms` is the newest event time seen, from which
retention counts. `ring` holds the last four observed events, newest first, so that a taken-over
claim does not count an entity twice. The generated Lua library does the same on bytes; one suite
holds both to it.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from features.layout import Layout, Observation
from features.tier import TIERS

FORMAT = 1
RING = 4
SLOT_MAX = 2**64 - 1


class DamagedState(ValueError):
    """Stored bytes are not a state of this layout: rebuild the store from the log."""


@dataclass(frozen=True, slots=True)
class Assertion:
    """Absolute values that the authoritative lane asserts for one entity; merged by maximum.

    `tiles`: `(tier, tile, slots of that tier)`. `heads`: aligned with the layout, 0 is nothing.
    `seen`: `(map, mark, last seen ms)`.
    """

    heads: tuple[int, ...] = ()
    tiles: tuple[tuple[int, int, tuple[int, ...]], ...] = ()
    seen: tuple[tuple[int, int, int], ...] = ()


@dataclass(slots=True)
class State:
    """Decoded state of one entity. `tiers[i]`: tile -> slots. `maps[j]`: mark -> last seen ms."""

    layout: Layout
    n: int = 0
    newest_ms: int = 0
    ring: tuple[int, ...] = (0,) * RING
    heads: list[int] = field(default_factory=list)
    tiers: list[dict[int, list[int]]] = field(default_factory=list)
    maps: list[dict[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.heads = self.heads or [0] * len(self.layout.heads)
        self.tiers = self.tiers or [{} for _ in TIERS]
        self.maps = self.maps or [{} for _ in self.layout.maps]

    def observe(self, seen: Observation) -> bool:
        """Count one event; False if the ring shows that it was counted already."""
        if seen.event in self.ring:
            return False
        self.n += 1
        self.ring = (seen.event, *self.ring[: RING - 1])
        self.newest_ms = max(self.newest_ms, seen.time_ms)
        self.heads = [max(a, b) for a, b in zip(self.heads, seen.heads, strict=True)]
        if any(seen.deltas):
            self._add(seen)
        for entries, mark in zip(self.maps, seen.marks, strict=True):
            if mark:
                entries[mark] = max(entries.get(mark, 0), seen.time_ms)
        self._trim()
        return True

    def _add(self, seen: Observation) -> None:
        measures = self.layout.measures
        for tier, slots in enumerate(self.layout.tiers):
            if not any(seen.deltas[s] for s in slots):
                continue
            tile = self.tiers[tier].setdefault(TIERS[tier].tile(seen.time_ms), [0] * len(slots))
            for i, slot in enumerate(slots):
                delta = seen.deltas[slot]
                tile[i] = tile[i] + delta if measures[slot].grows_by == "add" else max(tile[i], delta)

    def merge(self, asserted: Assertion) -> None:
        """Join with absolute values: the maximum per slot."""
        if asserted.heads:
            self.heads = [max(a, b) for a, b in zip(self.heads, asserted.heads, strict=True)]
        for tier, tile, slots in asserted.tiles:
            known = self.tiers[tier].setdefault(tile, [0] * len(slots))
            self.tiers[tier][tile] = [max(a, b) for a, b in zip(known, slots, strict=True)]
            self.newest_ms = max(self.newest_ms, tile * TIERS[tier].length_ms)
        for index, mark, last_ms in asserted.seen:
            self.maps[index][mark] = max(self.maps[index].get(mark, 0), last_ms)
            self.newest_ms = max(self.newest_ms, last_ms)
        self._trim()

    def _trim(self) -> None:
        for tier, tiles in enumerate(self.tiers):
            oldest = self.layout.oldest(tier, self.newest_ms)
            for tile in [t for t in tiles if t < oldest]:
                del tiles[tile]
        for spec, entries in zip(self.layout.maps, self.maps, strict=True):
            ordered = sorted((last, mark) for mark, last in entries.items())
            keep = [x for x in ordered[-spec.bound :] if x[0] >= self.newest_ms - spec.horizon_ms]
            entries.clear()
            entries.update((mark, last) for last, mark in keep)

    def encode(self) -> bytes:
        """The stored bytes; equal states have equal bytes."""
        layout = self.layout
        parts = [
            struct.pack("<IQQ", FORMAT, self.n, self.newest_ms),
            _words(self.ring),
            _words(self.heads),
            struct.pack("<3I", *(len(t) for t in self.tiers)),
            struct.pack(f"<{len(layout.maps)}I", *(len(m) for m in self.maps)),
        ]
        for slots, tiles in zip(layout.tiers, self.tiers, strict=True):
            record = struct.Struct(f"<I{len(slots)}Q")
            parts.extend(record.pack(tile, *tiles[tile]) for tile in sorted(tiles))
        for entries in self.maps:
            parts.extend(
                struct.pack("<QQ", mark, last) for mark, last in sorted(entries.items(), key=_by_age)
            )
        return b"".join(parts)

    @classmethod
    def decode(cls, layout: Layout, data: bytes | None) -> "State":
        """The state in `data`, or an empty one for `None`; raises `DamagedState`."""
        if data is None:
            return cls(layout)
        try:
            return cls._decode(layout, data)
        except struct.error as error:
            raise DamagedState(f"{layout.entity}: {len(data)} bytes: {error}") from error

    @classmethod
    def _decode(cls, layout: Layout, data: bytes) -> "State":
        version, n, newest_ms, *ring = struct.unpack_from(f"<IQQ{RING}Q", data)
        if version != FORMAT:
            raise DamagedState(f"{layout.entity}: format {version}, this code reads {FORMAT}")
        at = 20 + 8 * RING
        heads = list(struct.unpack_from(f"<{len(layout.heads)}Q", data, at))
        at += 8 * len(heads)
        counts = struct.unpack_from(f"<{3 + len(layout.maps)}I", data, at)
        at += 4 * len(counts)
        state = cls(layout, n, newest_ms, tuple(ring), heads)
        for tier, slots in enumerate(layout.tiers):
            record = struct.Struct(f"<I{len(slots)}Q")
            for _ in range(counts[tier]):
                tile, *values = record.unpack_from(data, at)
                state.tiers[tier][tile] = values
                at += record.size
        for entries, count in zip(state.maps, counts[3:], strict=True):
            for _ in range(count):
                mark, last = struct.unpack_from("<QQ", data, at)
                entries[mark] = last
                at += 16
        if at != len(data):
            raise DamagedState(f"{layout.entity}: {len(data)} bytes, expected {at}")
        return state


def _words(values: Iterable[int]) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


def _by_age(entry: tuple[int, int]) -> tuple[int, int]:
    return entry[1], entry[0]
