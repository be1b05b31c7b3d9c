"""The Merkle tree of RFC 6962 (section 2.1) over the records of a journal.

    leaf = SHA-256(0x00 | record hash)        node = SHA-256(0x01 | left | right)

The two prefixes keep a leaf from being taken for a node. A record's hash is that of the journal's chain, so a
leaf says which record it is and what came before it.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Self

EMPTY = sha256(b"").digest()


class MalformedTree(ValueError):
    """Peaks or a path that no tree of this size has: the sender is wrong."""


def leaves_of(hashes: Iterable[bytes]) -> list[bytes]:
    """Leaves of record hashes."""
    return [sha256(b"\x00" + each).digest() for each in hashes]


def node(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """A growing tree. Only the roots of its perfect subtrees are kept: one hash per bit of its size."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes | None] = []  # by height, None where the size has no such bit

    @classmethod
    def of(cls, size: int, peaks: Sequence[bytes]) -> Self:
        """A tree of `size` leaves from its peaks, the largest subtree first. Raises `MalformedTree`."""
        if size.bit_count() != len(peaks):
            raise MalformedTree(f"a tree of {size} leaves has {size.bit_count()} peaks, not {len(peaks)}")
        tree = cls()
        tree.size = size
        given = iter(reversed(peaks))
        tree._peaks = [next(given) if size >> height & 1 else None for height in range(size.bit_length())]
        return tree

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Add leaves behind the last one: one hash per leaf, level by level."""
        self.size += len(leaves)
        carry, height = list(leaves), 0
        while carry:
            if height == len(self._peaks):
                self._peaks.append(None)
            peak = self._peaks[height]
            if peak is not None:
                carry.insert(0, peak)
            self._peaks[height] = carry.pop() if len(carry) % 2 else None
            pairs = iter(carry)
            carry = [
                sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)
            ]
            height += 1

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """Roots of the perfect subtrees, the largest first: all that is needed to go on from here."""
        return tuple(peak for peak in reversed(self._peaks) if peak is not None)

    @property
    def root(self) -> bytes:
        """The tree's hash."""
        found: bytes | None = None
        for peak in self._peaks:
            if peak is not None:
                found = peak if found is None else node(peak, found)
        return EMPTY if found is None else found


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The hash of a whole tree."""
    tree = Tree()
    tree.extend(leaves)
    return tree.root


def path_of(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The inclusion path of a leaf, lowest sibling first (RFC 6962, section 2.1.1)."""
    if len(leaves) == 1:
        return []
    left = 1 << (len(leaves) - 1).bit_length() - 1
    if index < left:
        return [*path_of(leaves[:left], index), root_of(leaves[left:])]
    return [*path_of(leaves[left:], index - left), root_of(leaves[:left])]


def root_by(path: Sequence[bytes], leaf: bytes, index: int, size: int) -> bytes:
    """The root that a leaf and its path lead to (RFC 9162, section 2.1.3.2). Raises `MalformedTree`."""
    at, last, found = index, size - 1, leaf
    if not 0 <= index < size:
        raise MalformedTree(f"a tree of {size} leaves has no leaf {index}")
    for sibling in path:
        if not last:
            raise MalformedTree("the path is too long")
        if at & 1 or at == last:
            found = node(sibling, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node(found, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise MalformedTree("the path is too short")
    return found
