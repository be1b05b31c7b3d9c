"""Looking for a value in raw bytes: in every spelling that software gives it, and inside what is compressed.

Kafka batches are LZ4 frames, Parquet pages zstd frames or raw Snappy, checkpoints Snappy: of these LZ4 and
Snappy copy bytes that they have not seen before as they are, so that a random value stands there in plain; it
is unpacked anyway where a frame says that it is one.
"""

from __future__ import annotations

import contextlib
import mmap
import zlib
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa

UNPACKED_MAX: Final = 64 * 2**20
DEPTH_MAX: Final = 3
_FRAMES: Final = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
_GZIP: Final = (b"\x1f\x8b\x08",)
_ZLIB: Final = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_PIECE: Final = 1 << 12


def spellings(value: str) -> tuple[bytes, ...]:
    """How the value may stand in bytes. It should be ten random letters and digits or more."""
    raw = value.encode()
    wide = [raw, value.encode("utf-16-le"), value.encode("utf-16-be")]
    once = [part for text in wide for part in _base64(text)]
    found = {
        *wide,
        raw.hex().encode(),
        raw.hex().upper().encode(),
        raw.hex(" ").encode(),
        "".join(f"\\u{byte:04x}" for byte in raw).encode(),
        "".join(f"\\x{byte:02x}" for byte in raw).encode(),
        "".join(f"%{byte:02x}" for byte in raw).encode(),
        "".join(f"%{byte:02X}" for byte in raw).encode(),
        *once,
        *(part for text in once for part in _base64(text)),
    }
    return tuple(sorted(found))


def _base64(raw: bytes) -> Iterator[bytes]:
    """The characters that are the same whatever stands before and behind, for each of three places."""
    for shift in range(3):
        for encode in (b64encode, urlsafe_b64encode):
            first, last = -(-8 * shift // 6), 8 * (shift + len(raw)) // 6
            yield encode(bytes(shift) + raw)[first:last]


class Search:
    """For some values. Compressed frames are unpacked, frames within frames as well."""

    def __init__(self, values: Iterable[str]) -> None:
        self._needles = tuple(needle for value in values for needle in spellings(value))

    def holds(self, data: bytes, depth: int = 0) -> bool:
        """Whether one of the values is in there."""
        if any(needle in data for needle in self._needles):
            return True
        return depth < DEPTH_MAX and any(self.holds(inside, depth + 1) for inside in unpacked(data))

    def files(self, *places: Path) -> list[Path]:
        """Files below the places that hold one."""
        found = []
        for place in places:
            for path in [place] if place.is_file() else sorted(place.rglob("*")):
                if path.is_file() and not path.is_symlink() and self.holds(content(path)):
                    found.append(path)
        return found


def content(path: Path) -> bytes:
    """A file without the zeros that it was given ahead; nothing if it is gone meanwhile."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return mapped[:].rstrip(b"\0")
    except (FileNotFoundError, ValueError):
        return b""


def unpacked(data: bytes) -> Iterator[bytes]:
    """What compressed frames in the data hold, as far as each can be read."""
    view = memoryview(data)
    for magic, codec in _FRAMES.items():
        for at in _places(data, magic):
            whole, failed = _stream(view[at:], codec, _PIECE)
            # What follows the frame is none, and the last piece is lost with it: the rest byte by byte.
            yield _stream(view[at:], codec, 1, len(whole))[0] if failed else whole
    for magics, bits in ((_ZLIB, zlib.MAX_WBITS), (_GZIP, zlib.MAX_WBITS | 16)):
        for magic in magics:
            for at in _places(data, magic):
                with contextlib.suppress(zlib.error):
                    yield zlib.decompressobj(bits).decompress(view[at:], UNPACKED_MAX)


def _places(data: bytes, magic: bytes) -> Iterator[int]:
    at = data.find(magic)
    while at >= 0:
        yield at
        at = data.find(magic, at + 1)


def _stream(data: memoryview, codec: str, piece_bytes: int, known: int = 0) -> tuple[bytes, bool]:
    """What the frame at the beginning holds, and whether reading ended with an error. `known`: bytes that can
    be read at once."""
    found = bytearray()
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), codec) as stream:
            if known:
                found += stream.read(known)
            while len(found) < UNPACKED_MAX and (piece := stream.read(piece_bytes)):
                found += piece
    except (OSError, pa.ArrowInvalid):
        return bytes(found), True
    return bytes(found), False
