"""Which id sends a position row to which grouping subtask.

Flink routes a row by the hash of its grouping key: MurmurHash3 over the key's binary row, mixed again into a
key group, and key groups are dealt out evenly. `lanes` finds for every subtask an id that lands there; the
sink checks at run time that it did (`LanesCrossed`). Formats: Flink 2.2's `BinaryRowData`, `MurmurHashUtil`,
`KeyGroupRangeAssignment`.
"""

import struct
from itertools import count
from typing import Final

from features.sql import Lanes

MAX_PARALLELISM: Final = 128
_MASK: Final = 0xFFFFFFFF
_SEED: Final = 42
_INLINE_MAX: Final = 7


def lanes(codes: tuple[int, ...], parallelism: int) -> Lanes:
    """Lanes of a job with so many subtasks. One id serves all of `codes` (the job's topics)."""
    if parallelism == 1:
        return Lanes()
    found: dict[int, str] = {}
    for number in count():
        name = f"{number:x}"
        at = {subtask(code, name, parallelism) for code in codes}
        if len(at) == 1:
            found.setdefault(at.pop(), name)
        if len(found) == parallelism:
            return Lanes(tuple(found[s] for s in range(parallelism)))
    raise AssertionError("unreachable")


def subtask(code: int, name: str, parallelism: int) -> int:
    """The grouping subtask of the row `(code INT, id STRING)`; `name` has at most 7 bytes."""
    group = _spread(_signed(_murmur(_binary_row(code, name)))) % MAX_PARALLELISM
    return group * parallelism // MAX_PARALLELISM


def _binary_row(code: int, name: str) -> bytes:
    text = name.encode()
    assert len(text) <= _INLINE_MAX, "longer strings are not stored inline"
    return b"\0" * 8 + struct.pack("<i4x", code) + text.ljust(_INLINE_MAX, b"\0") + bytes([0x80 | len(text)])


def _murmur(data: bytes) -> int:
    h = _SEED
    for (word,) in struct.iter_unpack("<I", data):
        k = _rotate(word * 0xCC9E2D51 & _MASK, 15) * 0x1B873593 & _MASK
        h = (_rotate(h ^ k, 13) * 5 + 0xE6546B64) & _MASK
    return _mix(h ^ len(data))


def _spread(code: int) -> int:
    h = _rotate(code * 0xCC9E2D51 & _MASK, 15) * 0x1B873593 & _MASK
    h = (_rotate(h, 13) * 5 + 0xE6546B64) & _MASK
    signed = _signed(_mix(h ^ 4))
    return signed if signed >= 0 else -signed if signed != -(2**31) else 0


def _mix(h: int) -> int:
    h = (h ^ h >> 16) * 0x85EBCA6B & _MASK
    h = (h ^ h >> 13) * 0xC2B2AE35 & _MASK
    return h ^ h >> 16


def _rotate(x: int, by: int) -> int:
    return (x << by | x >> (32 - by)) & _MASK


def _signed(x: int) -> int:
    return x - 2**32 if x >= 2**31 else x
