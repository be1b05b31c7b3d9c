"""The compiled check of a batch's records and Python's are one function."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.audit.chain import best, by_python, compiled
from api.segment import BATCH_HEADER, HASH_BYTES, Head, encode_batch

CHECKS = {"python": by_python, "compiled": compiled}
# Around the edges of SHA-256's blocks: the hash before, the body, a bit and the length.
SIZES = [0, 1, 22, 23, 24, 31, 32, 33, 55, 86, 87, 88, 95, 96, 97, 128, 5_000]
bodies = st.lists(st.one_of(st.binary(max_size=300), st.sampled_from(SIZES).map(bytes)), max_size=6)


def batch(of, before):
    """What stands behind a batch's header, and the hashes in it."""
    data, _ = encode_batch(of, Head(0, before), 1, 0)
    hashes, digest = [], before
    for body in of:
        digest = hashlib.sha256(digest + body).digest()
        hashes.append(digest)
    return bytearray(data[BATCH_HEADER.size :]), hashes


def test_this_machine_has_the_compiled_one():
    assert best() is compiled()


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("size", SIZES)
def test_a_record_of_any_size(name, size):
    check = by_python if name == "python" else compiled()
    before = hashlib.sha256(b"before").digest()
    data, hashes = batch([b"x" * size, b"y" * size], before)
    room = bytearray(HASH_BYTES) + data
    assert check(room, HASH_BYTES, len(room), 2, before) == hashes


@given(bodies, st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES), st.integers(HASH_BYTES, 99), st.data())
def test_both_say_the_same_of_whole_and_of_damaged_batches(of, before, margin, draw):
    data, hashes = batch(of, before)
    room = bytearray(margin) + data + bytearray(margin)
    end = margin + len(data)
    assert by_python(bytearray(room), margin, end, len(of), before) == hashes
    assert compiled()(bytearray(room), margin, end, len(of), before) == hashes
    records = draw.draw(st.integers(0, len(of) + 2))
    at = draw.draw(st.integers(0, max(0, len(room) - 1)))
    if room:
        room[at] ^= draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(margin, len(room)))
    found = by_python(bytearray(room), margin, cut, records, before)
    assert compiled()(bytearray(room), margin, cut, records, before) == found
    if found is not None and cut == end and records == len(of):
        assert found == hashes
