"""The records of one batch against the hash chain: compiled where the processor has SHA instructions.

One call checks a batch: the library's hashes cost as much again per call as the hashing of a record.
Elsewhere, or without a compiler, Python does the same (`by_python`); a test holds both equal.
`python -m api.audit.chain` builds it.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from api.segment import HASH_BYTES, LENGTH
from models.kernel.build import Source, library, report
from models.kernel.errors import NotBuilt

CHAIN: Final = Source("chain", Path(__file__).parent, ("chain.c", "../sha256.c"), ("../sha256.h",))

Check = Callable[[bytearray, int, int, int, bytes], list[bytes] | None]
"""`(buffer, place, end, records, digest)`: hashes of the records that lie between `place` and `end` and
continue `digest`; `None` unless each is right and they fill the room. May write into the buffer there, and
into the 32 bytes before: a batch's header."""


def by_python(buffer: bytearray, place: int, end: int, records: int, digest: bytes) -> list[bytes] | None:
    """`Check` by the standard library.

    A hash covers the hash before and the body, but the body's length stands between them. The hash is moved
    over it, so that both are one piece of the buffer: a copy of 32 bytes instead of the whole body.
    """
    length, room = LENGTH.unpack_from, end - LENGTH.size - HASH_BYTES
    hashes: list[bytes] = []
    with memoryview(buffer) as view:
        for _ in range(records):
            if place > room:
                return None
            body = place + LENGTH.size
            stored = body + length(buffer, place)[0]
            place = stored + HASH_BYTES
            if place > end:
                return None
            buffer[body - HASH_BYTES : body] = digest
            digest = sha256(view[body - HASH_BYTES : stored]).digest()
            if buffer[stored:place] != digest:
                return None
            hashes.append(digest)
    return hashes if place == end else None


@cache
def compiled() -> Check:
    """`Check` by the processor's own instructions. Raises `NotBuilt`."""
    try:
        kernel = ctypes.PyDLL(str(library(CHAIN)))
    except OSError as error:
        raise NotBuilt(f"the shared object cannot be loaded: {error}") from error
    if not kernel.cordon_chain_usable():
        raise NotBuilt("this processor has no SHA instructions")
    call, byte = kernel.cordon_chain, ctypes.c_char
    call.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_void_p,
    ]  # fmt: skip

    def check(buffer: bytearray, place: int, end: int, records: int, digest: bytes) -> list[bytes] | None:
        if not 0 <= place <= end <= len(buffer) or records * (LENGTH.size + HASH_BYTES) > end - place:
            return None
        data = byte.from_buffer(buffer)
        found = bytearray(records * HASH_BYTES or 1)
        hashes = byte.from_buffer(found)
        if call(ctypes.addressof(data), place, end, records, digest, ctypes.addressof(hashes)):
            return None
        whole = bytes(found)
        return [whole[at : at + HASH_BYTES] for at in range(0, records * HASH_BYTES, HASH_BYTES)]

    return check


@cache
def best() -> Check:
    """The faster one that there is."""
    try:
        return compiled()
    except NotBuilt:
        return by_python


def _built() -> Path:
    compiled()
    return library(CHAIN)


if __name__ == "__main__":
    sys.exit(report("verification", _built, "Python verifies"))
