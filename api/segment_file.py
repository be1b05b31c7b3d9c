"""Segments as they lie on disk: as they were written, or compressed once they are published and anchored.

    0000000001.segment       what its writer wrote
    0000000001.segment.gz    the same bytes, gzip; written whole and read back before the first is removed

A segment is named by its first form everywhere, in findings too; where only the second is there it is read
instead. Bytes that do not decompress are missing: chain and checkpoints say so, as of any other damage.
"""

import os
import zlib
from pathlib import Path
from typing import Final

SUFFIX: Final = ".gz"
_GZIP: Final = 31  # zlib's window bits of a gzip stream
_STEP: Final = 1 << 20


def compressed(path: Path) -> Path:
    """The name of its compressed form."""
    return path.with_name(path.name + SUFFIX)


def stored_at(path: Path) -> Path | None:
    """The file that holds a segment, if there is one."""
    return next((each for each in (path, compressed(path)) if each.is_file()), None)


def content_of(path: Path) -> bytes:
    """A segment's bytes. Raises `FileNotFoundError`."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return decompress(compressed(path).read_bytes())


def open_segment(path: Path) -> int:
    """A file descriptor on a segment's bytes, for reading. Raises `FileNotFoundError`."""
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        content = memoryview(content_of(path))
    file = os.memfd_create(path.name)
    while content:
        content = content[os.write(file, content) :]
    return file


def size_of(path: Path) -> int:
    """Bytes of a segment, as its file says. Raises `FileNotFoundError`."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return int.from_bytes(compressed(path).read_bytes()[-4:], "little")


def decompress(data: bytes) -> bytes:
    """As much as can be read: a broken stream ends where it breaks."""
    stream = zlib.decompressobj(_GZIP)
    found = []
    for start in range(0, len(data), _STEP):
        try:
            found.append(stream.decompress(data[start : start + _STEP]))
        except zlib.error:
            found.append(_before_the_fault(data, len(b"".join(found))))
            break
    return b"".join(found)


def _before_the_fault(data: bytes, known: int) -> bytes:
    """What a broken stream gives beyond its first `known` bytes, in small steps."""
    stream = zlib.decompressobj(_GZIP)
    found = bytearray()
    for at in range(0, len(data), 64):
        try:
            found += stream.decompress(data[at : at + 64])
        except zlib.error:
            break
    return bytes(found[known:])
