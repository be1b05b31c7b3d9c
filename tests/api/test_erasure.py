"""Erasing a subject, step by step: what goes, what stays, and a death at any step."""

import json
from contextlib import closing, suppress
from dataclasses import replace
from itertools import count

import pytest

from api.audit.verify import verify
from api.erasure import (
    ERASURES_MAX,
    ErasedTooOften,
    Eraser,
    ErasureUnfinished,
    LettersUnavailable,
    Means,
    spellings,
)
from api.journal import Journal
from api.journal_reader import JournalReader
from api.letter import Envelopes, Fault, Place, holder_of, opened, place_of
from api.query_store import Logged, open_store
from api.record import decode_json, encode_json, unpack
from api.vault.directory import Follower, Vault
from api.vault.seal import Erased, Sealer, leaf_of, of_subject, of_transaction
from features import Catalogue, Entity, Window
from features.pseudonym import Pseudonyms
from features.tier import HOUR
from tests.api.world import CATALOGUE, NOW_MS, PSEUDONYMS, Bench, transaction

STEPS = ("pending", "begun", "looked", "destroyed", "followed", "deleted", "journalled")
# With a pair that the subject is a part of.
PAIRED = Catalogue(
    "paired",
    replace(CATALOGUE.schema, entities=(*CATALOGUE.schema.entities, Entity("at", ("customer", "merchant")))),
    (*CATALOGUE.features, Window("at", "count", HOUR)),
)
ADA = {"customer": "cu_ada", "card": "cd_ada", "email": "ada.löv@example.com", "ip": "10.20.30.40"}
BOB = {"customer": "cu_bob", "card": "cd_bob", "email": "bob@example.com"}


class Dies(Exception):
    """Stands for the end of the process."""


class World:
    """An installation: engine, vault, query store, dead letters; erasers come and go."""

    def __init__(self, directory):
        self.numbers = count(1)
        self.directory = directory
        self.vault = Vault(directory / "vault", self.fresh)
        self.follower = Follower(self.vault, "service-0")
        self.sealer = Sealer(self.follower.kept, "demo", lambda: self.fresh(12))
        self.bench = Bench(directory / "journal", sealing=self.sealer, catalogue=PAIRED)
        self.letters = []
        self.letters_down = False
        self.url = f"sqlite:///{directory / 'query.sqlite'}"
        self.offset = 0

    def fresh(self, size):
        return next(self.numbers).to_bytes(size, "big")

    def decide(self, *bodies):
        """Records, also in the query store."""
        found = [answer.record for answer in self.bench.decide(*bodies)]
        with closing(open_store(self.url)) as store:
            logged = [Logged("decisions", 0, self.offset + n, encode_json(r)) for n, r in enumerate(found)]
            self.offset += len(found)
            store.project(logged, {("decisions", 0): self.offset})
        return found

    def letter(self, original):
        place = Place("transactions", 0, len(self.letters))
        envelopes = Envelopes(PAIRED.schema, PSEUDONYMS, self.sealer)
        fault = Fault("malformed", "body", "bad", True)
        self.letters.append(decode_json(envelopes.letter(fault, place, original, NOW_MS)))
        return self.letters[-1]

    def read_letters(self):
        if self.letters_down:
            raise LettersUnavailable("no broker")
        yield from self.letters

    def eraser(self, *, follow=True, within_s=5.0):
        means = Means(
            self.vault, PAIRED, PSEUDONYMS, self.directory / "journal", lambda: self.bench.store,
            lambda: open_store(self.url), self.read_letters,
        )  # fmt: skip
        wait = (lambda _: self.follow()) if follow else (lambda _: None)
        return Eraser(means, lambda: NOW_MS, self.fresh, wait, within_s)

    def follow(self):
        if self.follower.changed():
            self.sealer.adopt(self.follower.read())
            self.follower.adopted()

    def open(self, record):
        subject = record["entities"].get("customer")
        holder = of_transaction(record["id"]) if subject is None else of_subject(subject)
        return decode_json(self.sealer.open(holder, record["id"], record["sealed"]))

    def inside(self, letter):
        place = place_of(letter)
        return opened(
            self.sealer.open(holder_of(letter["subject"], place), place.id, letter["sealed"])
        ).original

    def audit(self):
        reader = JournalReader(self.directory / "journal" / "audit")
        found = [decode_json(unpack(r.body).payload) for r in reader.read(1_000)]
        reader.close()
        return found


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.bench.journal.close()
    made.follower.close()


def test_what_records_show_as_pseudonyms_is_sealed_in_them_and_readable_with_the_key(world, tmp_path):
    (record,) = world.decide(transaction("t1", **ADA))
    assert world.open(record) == {**ADA, "merchant": "me_a", "device": "de_a"}
    (unknown,) = world.decide(transaction("t2", **(ADA | {"customer": None})))
    assert world.open(unknown)["card"] == "cd_ada"
    stored = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    claims = encode_json([world.bench.store.claim(f"tx:{id}").answer.decode() for id in ("t1", "t2")])
    for value in (*ADA.values(), "de_a", "me_a"):
        assert all(needle not in stored + claims for needle in spellings(value))


def test_a_subject_is_erased_and_nobody_else(world):
    first = world.decide(transaction("t1", **ADA), transaction("t2", **BOB), transaction("t3", **ADA))
    world.decide(transaction("t4", **(ADA | {"customer": None})))
    named = world.letter(json.dumps(transaction("x", **ADA)).encode())
    mentions = world.letter(b'{"broken": "ada.l\\u00f6v@example.com')
    by_id = world.letter(b"rubbish cu_ada rubbish")
    others = [world.letter(json.dumps(transaction("y", **BOB)).encode()), world.letter(b"rubbish")]
    customer, card, pair = (first[0]["entities"][name] for name in ("customer", "card", "at"))
    receipt = world.eraser().erase(("cu_ada",), "ops")
    for record in (first[0], first[2]):
        with pytest.raises(Erased):
            world.open(record)
    assert world.open(first[1])["customer"] == "cu_bob"
    for letter in (named, mentions, by_id):
        with pytest.raises(Erased):
            world.inside(letter)
    assert [b"cu_bob" in world.inside(others[0]), world.inside(others[1])] == [True, b"rubbish"]
    assert world.bench.store.read("customer", [customer]) == [None]
    assert world.bench.store.read("at", [pair]) == [None]
    assert world.bench.store.read("card", [card]) != [None]
    assert receipt["states"] == {"customer": 1, "at": 1}
    assert receipt["subject"] == customer
    assert (receipt["keys"], receipt["letters"]) == (3, 2)
    assert receipt["vault"]["version"] == world.vault.read().version == 2
    assert receipt["vault"]["sha256"] == world.vault.read().digest
    begun, done = world.audit()
    assert (begun["event"], done) == ("erasure_begun", receipt)
    assert "cu_ada" not in json.dumps([begun, done])
    for name in ("audit", "service-0"):
        verify(world.directory / "journal" / name)


def test_a_subject_that_returns_is_a_new_one_and_may_be_erased_again(world):
    (old,) = world.decide(transaction("t1", **ADA))
    assert world.eraser().erase(("cu_ada",), "ops")["generation"] == 0
    (new,) = world.decide(transaction("t2", **ADA))
    assert world.open(new)["email"] == ADA["email"]
    with pytest.raises(Erased):
        world.open(old)
    second = world.eraser().erase(("cu_ada",), "ops")
    assert second["generation"] == 1
    with pytest.raises(Erased):
        world.open(new)
    assert world.eraser().erase(("cu_nobody",), "ops")["states"] == {"customer": 0}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("resumed", [True, False], ids=["by another", "by asking again"])
def test_whoever_dies_at_any_step_leaves_an_erasure_that_is_finished_once(world, step, resumed):
    (record,) = world.decide(transaction("t1", **ADA))
    letter = world.letter(b"rubbish cd_ada")
    dying = world.eraser()

    def die(at):
        if at == step:
            raise Dies

    dying.on_step = die
    with suppress(Dies):
        dying.erase(("cu_ada",), "ops")
        pytest.fail("it did not die")
    pending = b"".join(p.read_bytes() for p in (world.vault.directory / "pending").iterdir())
    assert b"cu_ada" not in pending
    if resumed:
        (receipt,) = world.eraser().resume()
    else:
        receipt = world.eraser().erase(("cu_ada",), "somebody else")
    assert receipt["generation"] == 0
    assert receipt["by"] == "ops"
    assert receipt["vault"]["version_before"] == 1
    for opening in (lambda: world.open(record), lambda: world.inside(letter)):
        with pytest.raises(Erased):
            opening()
    assert [r["event"] for r in world.audit()] == ["erasure_begun", "erasure"]
    assert world.eraser().resume() == []
    assert not list((world.vault.directory / "pending").glob("*.json"))


def test_while_a_process_holds_the_old_keys_there_is_no_receipt(world):
    (record,) = world.decide(transaction("t1", **ADA))
    with pytest.raises(ErasureUnfinished, match="service-0"):
        world.eraser(follow=False, within_s=0.2).erase(("cu_ada",), "ops")
    assert world.open(record)  # this process has not followed
    assert [r["event"] for r in world.audit()] == ["erasure_begun"]
    world.follow()
    assert [r["event"] for r in world.eraser().resume()] == ["erasure"]
    with pytest.raises(Erased):
        world.open(record)


def test_letters_that_cannot_be_read_hold_the_erasure_up_before_anything_is_destroyed(world):
    (record,) = world.decide(transaction("t1", **ADA))
    letter = world.letter(b"rubbish cu_ada")
    world.letters_down = True
    with pytest.raises(ErasureUnfinished, match="kafka"):
        world.eraser().erase(("cu_ada",), "ops")
    assert world.open(record)
    world.letters_down = False
    assert world.eraser().resume()[0]["letters"] == 1
    with pytest.raises(Erased):
        world.inside(letter)


def test_a_journal_that_is_busy_holds_the_erasure_up(world):
    with Journal(world.directory / "journal" / "audit"), pytest.raises(ErasureUnfinished, match="journal"):
        world.eraser().erase(("cu_ada",), "ops")
    assert [r["event"] for r in world.eraser().resume()] == ["erasure"]


def test_there_is_a_limit_to_what_one_subject_costs_the_vault(world):
    holder = of_subject(PSEUDONYMS.entity("customer", ("cu_ada",)))
    world.vault.destroy(leaf_of("demo", holder, n) for n in range(ERASURES_MAX))
    with pytest.raises(ErasedTooOften):
        world.eraser().erase(("cu_ada",), "ops")
    assert world.eraser().resume() == []


def test_a_transaction_without_a_subject_is_erased_by_its_id_and_no_other(world):
    unknown = ADA | {"customer": None}
    one, other = world.decide(transaction("t1", **unknown), transaction("t2", **unknown))
    letter, third = world.letter(b"rubbish cd_ada"), world.letter(b"rubbish")
    dying = world.eraser()

    def die(at):
        if at == "looked":
            raise Dies

    dying.on_step = die
    with pytest.raises(Dies):
        dying.erase_transaction("t1", "ops")
    receipt = world.eraser().erase_transaction("t1", "ops")
    assert (receipt["entity"], receipt["subject"], receipt["letters"]) == ("transaction", "t1", 1)
    assert receipt["states"] == {}
    for opening in (lambda: world.open(one), lambda: world.inside(letter)):
        with pytest.raises(Erased):
            opening()
    assert world.open(other)["card"] == "cd_ada"
    assert world.inside(third) == b"rubbish"


def test_an_open_claim_holds_sealed_values_only_and_its_sweep_keeps_them(world):
    work = world.bench.engine.intake.transaction(
        world.bench.engine.intake.parse(inbound(transaction("t9", **ADA))), "http"
    )
    world.bench.store.arrive([work.arrival], now_ms=NOW_MS, deadline_ms=NOW_MS + 250)
    payload = world.bench.store.claim("tx:t9").payload
    assert all(needle not in payload for value in ADA.values() for needle in spellings(value))
    world.bench.now_ms += 120_000
    assert world.bench.engine.sweep(now_ms=world.bench.now_ms) == 1
    (record,) = world.bench.journalled()
    assert record["type"] == "abandoned"
    assert world.open(record)["email"] == ADA["email"]


def inbound(body):
    from api.work import Inbound

    return Inbound("transaction", body, "http")


def test_other_tenants_and_secrets_have_other_keys(world):
    other = Pseudonyms("other", b"0123456789abcdef")
    assert other.entity("customer", ("cu_ada",)) != PSEUDONYMS.entity("customer", ("cu_ada",))
    assert leaf_of("demo", "subject:x", 0) != leaf_of("other", "subject:x", 0)
