"""Reader of UBJSON as XGBoost writes it: typed arrays become numpy arrays, floats keep their bits."""

import struct
from typing import Any, Final

import numpy as np

NUMBERS: Final = {
    b"i": struct.Struct(">b"),
    b"U": struct.Struct(">B"),
    b"I": struct.Struct(">h"),
    b"l": struct.Struct(">i"),
    b"L": struct.Struct(">q"),
    b"d": struct.Struct(">f"),
    b"D": struct.Struct(">d"),
}
NESTING_MAX: Final = 32


class InvalidUbjson(ValueError):
    """Not UBJSON, or a part of it is missing."""


def parse(content: bytes) -> Any:
    """The value that `content` holds. Raises `InvalidUbjson`."""
    try:
        return _Reader(content).value(0)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise InvalidUbjson(f"not UBJSON: {error}") from error


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def value(self, depth: int) -> Any:
        return self._typed(self._take(1), depth)

    def _typed(self, marker: bytes, depth: int) -> Any:
        if depth > NESTING_MAX:
            raise InvalidUbjson("nested too deeply")
        if marker in NUMBERS:
            return self._number(marker)
        match marker:
            case b"{":
                return self._object(depth + 1)
            case b"[":
                return self._array(depth + 1)
            case b"S":
                return self._text()
            case b"T" | b"F":
                return marker == b"T"
            case b"Z":
                return None
        raise InvalidUbjson(f"unknown marker {marker!r} at byte {self._at - 1}")

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self._skip(b"}"):
            key = self._text()
            found[key] = self.value(depth)
        return found

    def _array(self, depth: int) -> Any:
        marker = self._take(1) if self._skip(b"$") else None
        if not self._skip(b"#"):
            if marker is not None:
                raise InvalidUbjson("a typed array without a length")
            found = []
            while not self._skip(b"]"):
                found.append(self.value(depth))
            return found
        count = self._length()
        if marker is None:
            return [self.value(depth) for _ in range(count)]
        if marker not in NUMBERS:
            raise InvalidUbjson(f"an array of {marker!r}")
        kind = np.dtype(NUMBERS[marker].format)
        return np.frombuffer(self._take(count * kind.itemsize), dtype=kind).astype(kind.newbyteorder("="))

    def _number(self, marker: bytes) -> int | float:
        layout = NUMBERS[marker]
        number: int | float = layout.unpack(self._take(layout.size))[0]
        return number

    def _length(self) -> int:
        marker = self._take(1)
        count = self._number(marker) if marker in NUMBERS else -1
        if not isinstance(count, int) or count < 0:
            raise InvalidUbjson(f"a length of type {marker!r}")
        return count

    def _text(self) -> str:
        return self._take(self._length()).decode()

    def _take(self, count: int) -> bytes:
        part = self._content[self._at : self._at + count]
        if len(part) != count:
            raise InvalidUbjson("it ends in the middle of a value")
        self._at += count
        return part

    def _skip(self, marker: bytes) -> bool:
        if self._content[self._at : self._at + 1] != marker:
            return False
        self._at += 1
        return True
