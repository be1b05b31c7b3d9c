"""The tree against the definition of RFC 6962, written as it stands there."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.audit.merkle import MalformedTree, Tree, leaves_of, path_of, root_by, root_of


def largest_power_below(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def oracle(entries: list[bytes]) -> bytes:
    """MTH(D) of section 2.1."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    k = largest_power_below(len(entries))
    return sha256(b"\x01" + oracle(entries[:k]) + oracle(entries[k:])).digest()


def oracle_path(m: int, entries: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]) of section 2.1.1."""
    if len(entries) == 1:
        return []
    k = largest_power_below(len(entries))
    if m < k:
        return [*oracle_path(m, entries[:k]), oracle(entries[k:])]
    return [*oracle_path(m - k, entries[k:]), oracle(entries[:k])]


def entries(count: int) -> list[bytes]:
    return [sha256(str(i).encode()).digest() for i in range(count)]


@given(cuts=st.lists(st.integers(0, 40), max_size=12))
def test_a_tree_that_grows_in_any_pieces_is_the_tree_of_the_whole(cuts):
    tree, given_ = Tree(), entries(sum(cuts))
    at = 0
    for count in cuts:
        tree.extend(leaves_of(given_[at : at + count]))
        at += count
        assert (tree.size, tree.root) == (at, oracle(given_[:at]))
        tree = Tree.of(tree.size, tree.peaks)  # what a checkpoint carries is enough to go on


@settings(deadline=None)
@given(size=st.integers(1, 70), data=st.data())
def test_a_path_leads_to_the_root_and_no_other_record_does(size, data):
    given_, index = entries(size), data.draw(st.integers(0, size - 1))
    leaves = leaves_of(given_)
    path = path_of(leaves, index)
    assert path == oracle_path(index, given_)
    assert root_by(path, leaves[index], index, size) == oracle(given_) == root_of(leaves)
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        assert root_by(path, leaves[other], index, size) != oracle(given_)
    for place in range(len(path)):
        bent = [*path[:place], bytes(32), *path[place + 1 :]]
        assert root_by(bent, leaves[index], index, size) != oracle(given_)


@settings(deadline=None)
@given(size=st.integers(1, 70), data=st.data())
def test_a_path_of_another_length_is_refused(size, data):
    leaves, index = leaves_of(entries(size)), data.draw(st.integers(0, size - 1))
    path = path_of(leaves, index)
    with pytest.raises(MalformedTree, match="too long"):
        root_by([*path, bytes(32)], leaves[index], index, size)
    if path:
        with pytest.raises(MalformedTree, match="too short"):
            root_by(path[:-1], leaves[index], index, size)
    with pytest.raises(MalformedTree, match="has no leaf"):
        root_by(path, leaves[index], size, size)


def test_an_inner_node_is_not_a_leaf():
    left, right = entries(2)
    joined = leaves_of([left])[0] + leaves_of([right])[0]
    assert leaves_of([joined])[0] != root_of(leaves_of([left, right]))


def test_peaks_of_another_size_are_refused():
    with pytest.raises(MalformedTree, match="has 2 peaks, not 1"):
        Tree.of(3, [bytes(32)])
