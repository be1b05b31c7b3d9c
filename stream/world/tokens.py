"""Opaque ids and repeatable pseudo-random numbers, both computed from integers by a fixed mixing function."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_LETTERS = np.frombuffer(b"abcdefghjkmnpqrs", dtype=np.uint8)
_TOKEN_LETTERS = 16


def mix(values: NDArray[Any], salt: int) -> NDArray[np.uint64]:
    """splitmix64's finaliser over `values + salt`: a bijection of 64-bit words, so distinct stay distinct."""
    word = values.astype(np.uint64) + np.uint64((salt * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def fraction(values: NDArray[Any], salt: int) -> NDArray[np.float64]:
    """A number in [0, 1) that depends on `values` and `salt` alone: a habit that needs no storage."""
    return (mix(values, salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def tokens(prefix: str, index: NDArray[Any], salt: int) -> pa.StringArray:
    """One id per index: `prefix` and sixteen letters. Letters only, so no id can look like a card number."""
    words = mix(index, salt)
    shifts = np.arange(0, 64, 4, dtype=np.uint64)
    letters = _LETTERS[((words[:, None] >> shifts) & np.uint64(15)).astype(np.intp)]
    width = len(prefix) + _TOKEN_LETTERS
    text = np.empty((len(words), width), dtype=np.uint8)
    text[:, : len(prefix)] = np.frombuffer(prefix.encode(), dtype=np.uint8)
    text[:, len(prefix) :] = letters
    offsets = np.arange(0, (len(words) + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(len(words), pa.py_buffer(offsets), pa.py_buffer(text))


def addresses(index: NDArray[Any], salt: int) -> pa.StringArray:
    """Distinct dotted quads of the private network 10.0.0.0/8, at most 2^24 of them."""
    mask = np.uint64(0xFFFFFF)
    word = (index.astype(np.uint64) + np.uint64(salt & 0xFFFFFF)) & mask
    word = (word * np.uint64(0x9E3779)) & mask
    word = ((word ^ (word >> np.uint64(13))) * np.uint64(0x85EBCB)) & mask
    parts = zip((word >> np.uint64(16)).tolist(), ((word >> np.uint64(8)) & np.uint64(255)).tolist(),
                (word & np.uint64(255)).tolist(), strict=True)  # fmt: skip
    return pa.array([f"10.{a}.{b}.{c}" for a, b, c in parts], pa.string())
