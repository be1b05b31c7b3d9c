"""Sealed values: opened with the holder's key, for the record they belong to, and by nobody after its end."""

from base64 import b64decode, b64encode
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.vault import seal as module
from api.vault.directory import Kept
from api.vault.seal import Erased, NotOpened, Sealer, generation_of, leaf_of, of_subject, of_transaction
from api.vault.tree import Frontier

ADA, BOB = of_subject("a" * 32), of_subject("b" * 32)


def kept(*gone, vault=b"vault--1", root=bytes(32)):
    return Kept(vault, 1 + len(gone), Frontier.of_root(root).without(gone), "")


def sealer(found=None, tenant="demo"):
    numbers = count(1)
    return Sealer(found or kept(), tenant, lambda: next(numbers).to_bytes(12, "big"))


@given(st.binary(max_size=300), st.text(min_size=1, max_size=40))
def test_what_was_sealed_is_opened_by_any_process_with_the_same_vault(plain, id):
    sealed = sealer().seal(ADA, id, plain)
    assert sealer().open(ADA, id, sealed) == plain
    assert len(plain) < 8 or plain not in b64decode(sealed)


def test_what_is_remembered_of_keys_has_a_limit_and_none_is_needed(monkeypatch):
    monkeypatch.setattr(module, "KEYS_MAX", 8)
    monkeypatch.setattr(module, "CIPHERS_MAX", 4)
    one = sealer()
    holders = [of_transaction(str(number % 13)) for number in range(40)]
    sealed = [one.seal(holder, "t", b"ada") for holder in holders]
    assert len(one._keys) <= 8
    assert len(one._ciphers) <= 4
    assert {sealer().open(holder, "t", each) for holder, each in zip(holders, sealed, strict=True)} == {
        b"ada"
    }


def test_the_same_twice_looks_different():
    one = sealer()
    assert one.seal(ADA, "t", b"x") != one.seal(ADA, "t", b"x")


@pytest.mark.parametrize(
    ("holder", "id", "other"),
    [(BOB, "t", sealer()), (ADA, "u", sealer()), (of_transaction("t"), "t", sealer()),
     (ADA, "t", sealer(tenant="else")), (ADA, "t", sealer(kept(root=bytes(31) + b"1")))],
)  # fmt: skip
def test_a_sealed_value_opens_nowhere_else(holder, id, other):
    with pytest.raises(NotOpened):
        other.open(holder, id, sealer().seal(ADA, "t", b"ada@example.com"))


def test_every_changed_bit_is_noticed():
    raw = b64decode(sealer().seal(ADA, "t", b"ada"))
    for at in range(8 * len(raw)):
        bent = bytearray(raw)
        bent[at // 8] ^= 1 << at % 8
        with pytest.raises((NotOpened, Erased)):
            sealer(kept(leaf_of("demo", BOB, 0))).open(ADA, "t", b64encode(bent).decode())
    for nonsense in ("", "%", "AAAA", "Zm9v", b64encode(raw[:20]).decode()):
        with pytest.raises(NotOpened):
            sealer().open(ADA, "t", nonsense)


def test_keys_of_another_vault_are_named():
    with pytest.raises(NotOpened, match=b"vault--2".hex()):
        sealer(kept(vault=b"vault--2")).open(ADA, "t", sealer().seal(ADA, "t", b"x"))


def test_after_an_erasure_the_old_is_gone_others_stay_and_the_subject_that_returns_is_a_new_one():
    one = sealer()
    old, others = one.seal(ADA, "t1", b"ada"), one.seal(BOB, "t2", b"bob")
    after = kept(leaf_of("demo", ADA, 0))
    one.adopt(after)
    with pytest.raises(Erased):
        one.open(ADA, "t1", old)
    assert one.open(BOB, "t2", others) == b"bob"
    again = one.seal(ADA, "t3", b"ada again")
    assert one.open(ADA, "t3", again) == b"ada again"
    assert generation_of(after.frontier, "demo", ADA) == 1
    # A second erasure takes the second generation with it.
    one.adopt(kept(leaf_of("demo", ADA, 0), leaf_of("demo", ADA, 1)))
    with pytest.raises(Erased):
        one.open(ADA, "t3", again)
    assert one.open(BOB, "t2", others) == b"bob"


def test_remembered_keys_are_bounded_and_dropped_with_the_keys():
    one = sealer()
    sealed = {n: one.seal(of_subject(str(n)), "t", b"x") for n in range(module.KEYS_MAX + 10)}
    assert len(one._keys) <= module.KEYS_MAX
    assert one.open(of_subject("3"), "t", sealed[3]) == b"x"
    one.adopt(kept())
    assert one._keys == {}
