"""A key for every leaf, of which any can be destroyed: a puncturable tree of keys. No I/O.

The pseudorandom function of Goldreich, Goldwasser and Micali (1986): a node's children are keyed hashes of
its secret, a leaf's secret is its key. What is kept is a *frontier*, nodes that together cover all leaves.
Taking a leaf out replaces the node above it by the siblings along the path (Boneh and Waters 2013), and no
child says anything about its parent:

    before     (root)                   after taking out leaf x      .
                                                                  /     \\
                                                                [a]      .         [ ] kept
                                                                       /   \\
                                                                      x    [b]

Four children per node, 32 levels, 64-bit indices: a key costs 32 hashes at most, a leaf that was taken out at
most 96 nodes of 41 bytes, less the more were taken out before it.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Self

import numpy as np

SECRET_BYTES: Final = 32
INDEX_BITS: Final = 64
DEPTH: Final = 32
_BITS: Final = 2
_CHILDREN: Final = 1 << _BITS
_DIGITS: Final = tuple(bytes((digit,)) for digit in range(_CHILDREN))


class TreeDamaged(ValueError):
    """These bytes are no frontier: restore the file that they come from."""


def child(secret: bytes, digit: int) -> bytes:
    """Secret of a node's child: keyed BLAKE2b."""
    return blake2b(_DIGITS[digit], key=secret, digest_size=SECRET_BYTES, person=b"cordon-tree-1").digest()


def span(depth: int) -> int:
    """How many leaves a node of this depth covers."""
    return 1 << (INDEX_BITS - _BITS * depth)


@dataclass(frozen=True, slots=True)
class Frontier:
    """Nodes that cover every leaf that was not taken out, by their first leaf.

    `starts`: first leaf of each, ascending. `depths`: a byte for each. `secrets`: 32 bytes for each.
    """

    starts: "array[int]"
    depths: bytes
    secrets: bytes

    @classmethod
    def of_root(cls, secret: bytes) -> Self:
        """The frontier from which nothing was taken out yet."""
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a root has {SECRET_BYTES} bytes")
        return cls(array("Q", (0,)), b"\0", secret)

    def __len__(self) -> int:
        return len(self.starts)

    def leaf(self, index: int) -> bytes | None:
        """The leaf's secret, 32 bytes; `None` if it was taken out."""
        place = self._covering(index)
        if place is None:
            return None
        secret = self.secrets[place * SECRET_BYTES : (place + 1) * SECRET_BYTES]
        for shift in range(INDEX_BITS - _BITS * (self.depths[place] + 1), -1, -_BITS):
            secret = child(secret, index >> shift & _CHILDREN - 1)
        return secret

    def nodes(self) -> Iterator[tuple[int, int, bytes]]:
        """First leaf, depth and secret of each node that is kept."""
        for place, (start, depth) in enumerate(zip(self.starts, self.depths, strict=True)):
            yield start, depth, self.secrets[place * SECRET_BYTES : (place + 1) * SECRET_BYTES]

    def covers(self, index: int) -> bool:
        """Whether the leaf was not taken out."""
        return self._covering(index) is not None

    def without(self, indices: Iterable[int]) -> "Frontier":
        """The frontier from which these leaves cannot be derived, and every other one can."""
        gone: dict[int, list[int]] = {}
        for index in sorted(set(indices)):
            place = self._covering(index)
            if place is not None:
                gone.setdefault(place, []).append(index)
        starts, depths, secrets = array("Q"), bytearray(), bytearray()
        done = 0
        for place, inside in gone.items():
            starts += self.starts[done:place]
            depths += self.depths[done:place]
            secrets += self.secrets[done * SECRET_BYTES : place * SECRET_BYTES]
            secret = self.secrets[place * SECRET_BYTES : (place + 1) * SECRET_BYTES]
            for node in _siblings(self.starts[place], self.depths[place], secret, inside):
                starts.append(node[0])
                depths.append(node[1])
                secrets += node[2]
            done = place + 1
        if not gone:
            return self
        starts += self.starts[done:]
        depths += self.depths[done:]
        secrets += self.secrets[done * SECRET_BYTES :]
        return Frontier(starts, bytes(depths), bytes(secrets))

    def _covering(self, index: int) -> int | None:
        if not 0 <= index < 1 << INDEX_BITS:
            raise ValueError(f"an index has {INDEX_BITS} bits")
        place = bisect_right(self.starts, index) - 1
        if place < 0 or index - self.starts[place] >= span(self.depths[place]):
            return None
        return place

    def encode(self) -> bytes:
        """8 bytes for each start, little endian, then a byte for each depth, then 32 for each secret."""
        return np.array(self.starts, "<u8").tobytes() + self.depths + self.secrets

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """What `encode` made. Raises `TreeDamaged`."""
        nodes, rest = divmod(len(data), 8 + 1 + SECRET_BYTES)
        if rest:
            raise TreeDamaged("no whole number of nodes")
        starts = np.frombuffer(data, "<u8", nodes).astype(np.uint64)
        depths, secrets = data[8 * nodes : 9 * nodes], data[9 * nodes :]
        if max(depths, default=0) > DEPTH:
            raise TreeDamaged(f"a node is deeper than {DEPTH}")
        # Of a node: its last leaf less its first.
        widths = np.array([span(depth) - 1 for depth in range(DEPTH + 1)], np.uint64)
        width = widths[np.frombuffer(depths, np.uint8)]
        if (starts & width).any() or (starts[:-1] + width[:-1] >= starts[1:]).any():
            raise TreeDamaged("a node stands where none can")
        return cls(array("Q", starts.tobytes()), depths, secrets)


def _siblings(start: int, depth: int, secret: bytes, gone: Sequence[int]) -> Iterator[tuple[int, int, bytes]]:
    """Nodes below this one that cover all of it but the leaves in `gone`, ascending."""
    if not gone:
        yield start, depth, secret
        return
    if depth == DEPTH:
        return
    size = span(depth + 1)
    for digit in range(_CHILDREN):
        first = start + digit * size
        inside = gone[bisect_left(gone, first) : bisect_left(gone, first + size)]
        yield from _siblings(first, depth + 1, child(secret, digit), inside)
