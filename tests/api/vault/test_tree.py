"""The puncturable tree of keys against its definition: every leaf by itself, from the root."""

from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.vault.tree import DEPTH, Frontier, TreeDamaged, child, span

ROOT = bytes(range(32))
indices = st.integers(0, 2**64 - 1)
# Neighbours share almost all of their path: the places where siblings are left out or kept by mistake.
near = st.builds(
    lambda base, offset: (base + offset) % 2**64, st.sampled_from([0, 2**63, 12345]), st.integers(-9, 9)
)
places = st.one_of(indices, near)


def naive_path(index):
    """Secrets from the root to the leaf, by base-4 digits of the index."""
    digits = [index // 4**power % 4 for power in range(31, -1, -1)]
    found = [ROOT]
    for digit in digits:
        found.append(blake2b(bytes([digit]), key=found[-1], digest_size=32, person=b"cordon-tree-1").digest())
    return found


@given(indices)
def test_a_leaf_is_the_chain_of_hashes_from_the_root(index):
    assert Frontier.of_root(ROOT).leaf(index) == naive_path(index)[-1]


@settings(deadline=None)
@given(st.lists(places, min_size=1, max_size=12), st.lists(places, max_size=12))
def test_what_was_taken_out_is_gone_and_everything_else_is_as_it_was(gone, others):
    whole = Frontier.of_root(ROOT)
    punctured = whole.without(gone)
    for index in gone:
        assert punctured.leaf(index) is None
        assert not punctured.covers(index)
        # Nothing on its path is kept, so nothing that is kept leads to it: hashes go downwards only.
        held = {secret for _, _, secret in punctured.nodes()}
        assert held.isdisjoint(naive_path(index))
    for index in set(others) - set(gone):
        assert punctured.leaf(index) == naive_path(index)[-1]


@settings(deadline=None)
@given(st.lists(places, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_order_does_not_matter_and_neither_does_repeating(gone, random):
    once = Frontier.of_root(ROOT).without(gone)
    again = [*gone, *gone]
    random.shuffle(again)
    assert Frontier.of_root(ROOT).without(again) == once


@settings(deadline=None)
@given(st.lists(places, max_size=12))
def test_the_nodes_cover_everything_but_what_was_taken_out_once(gone):
    punctured = Frontier.of_root(ROOT).without(gone)
    covered = sum(span(depth) for _, depth, _ in punctured.nodes())
    assert covered == 2**64 - len(set(gone))
    ends = [start + span(depth) for start, depth, _ in punctured.nodes()]
    assert all(end <= start for end, start in zip(ends, list(punctured.starts)[1:], strict=False))


def test_many_erasures_share_their_upper_levels():
    gone = [int.from_bytes(blake2b(str(n).encode(), digest_size=8).digest()) for n in range(3_000)]
    punctured = Frontier.of_root(ROOT).without(gone)
    assert len(Frontier.of_root(ROOT).without(gone[:1])) == 3 * DEPTH
    assert len(punctured) < 3_000 * 3 * (DEPTH - 5)
    assert not any(punctured.covers(index) for index in gone)
    other = int.from_bytes(blake2b(b"other", digest_size=8).digest())
    assert punctured.leaf(other) == naive_path(other)[-1]


@settings(deadline=None)
@given(st.lists(places, max_size=6))
def test_a_frontier_survives_its_bytes(gone):
    punctured = Frontier.of_root(ROOT).without(gone)
    assert Frontier.decode(punctured.encode()) == punctured


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"\1" + b[1:], lambda b: b[:8] + b"\x21" + b[9:]]
)
def test_bytes_that_are_no_frontier_are_refused(damage):
    with pytest.raises(TreeDamaged):
        Frontier.decode(damage(Frontier.of_root(ROOT).encode()))


def test_children_differ():
    assert len({child(ROOT, digit) for digit in range(4)}) == 4
    with pytest.raises(ValueError, match="64 bits"):
        Frontier.of_root(ROOT).leaf(2**64)
