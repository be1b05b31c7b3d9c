"""What goes wrong on purpose: exactly counted, seeded, and named as the schema's validation names it."""

import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import load
from features.event import InvalidEvent, check_time, parse_transaction
from features.rates import rates
from features.schema import Entity, Field, Schema
from stream.replay.history import label_item
from stream.replay.injection import Injection, injected
from stream.replay.item import Item
from stream.replay.malformed import SPOILS, spoil
from stream.replay.manifest import Manifest
from stream.world.spec import WorldSpec
from stream.world.tables import TRUTH
from stream.world.world import generate
from tests.stream.histories import PARCELS, START_MS

MINUTE_MS = 60_000


def parcel_item(number: int, at_ms: int, sender: int = 1) -> Item:
    body = {"transaction_id": str(number), "time": START_MS + at_ms, "amount": 5, "sender": str(sender)}
    ids = (f"sender={sender}",)
    return Item(
        START_MS + at_ms, "transaction", str(number), str(number), b"1", msgspec.json.encode(body), ids
    )


def stream(count: int, gap_ms: int = 1_000, labelled: int = 3) -> list[Item]:
    """Parcels at equal gaps; every `labelled`-th has a label one gap later, just before the next parcel."""
    items = []
    for number in range(count):
        items.append(parcel_item(number, number * gap_ms))
        if number % labelled == 0:
            items.append(label_item(START_MS + number * gap_ms + gap_ms - 1, str(number), b"1", True))
    return items


def inject(items, plan, schema=PARCELS):
    manifest = Manifest()
    return list(injected(iter(items), schema, plan, manifest)), manifest


def test_without_a_plan_nothing_changes():
    items = stream(50)
    placed, manifest = inject(items, Injection())
    assert [p.item for p in placed] == items
    assert manifest.sent == {"transaction": 50, "label": 17}
    assert manifest.messages == 67


@given(
    st.builds(
        Injection,
        duplicates=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
        conflicts=st.sampled_from([0.0, 0.3]),
        disorder=st.sampled_from([0.0, 0.1, 1.0]),
        malformed=st.sampled_from([0.0, 0.2]),
        disorder_ms=st.integers(1, 30_000),
        repeat_within_ms=st.integers(1, 30_000),
        seed=st.integers(0, 5),
    ),
    st.integers(1, 150),
    st.sampled_from([1, 100, 5_000]),
)
def test_the_manifest_is_exactly_what_left(plan, count, gap_ms):
    items = stream(count, gap_ms)
    placed, manifest = inject(items, plan)
    first = [p.item for p in placed if p.item.injected is None]
    assert sorted(first) == sorted(items), "every message once"
    by_cause = Counter((p.item.injected or "").split(":")[0] for p in placed)
    assert by_cause["duplicate"] == manifest.duplicates.total()
    assert by_cause["conflict"] == manifest.conflicts.total()
    assert by_cause["malformed"] == manifest.malformed.total() == len(manifest.faults)
    assert manifest.messages == len(placed)
    assert [p.position_ms for p in placed] == sorted(p.position_ms for p in placed)
    late = [p for p in placed if p.item.injected is None and p.position_ms > p.item.time_ms]
    assert sum(p.item.kind == "transaction" for p in late) == manifest.disordered
    assert all(
        p.position_ms - p.item.time_ms <= plan.disorder_ms for p in late if p.item.kind == "transaction"
    )
    place = {p.item.id: n for n, p in enumerate(placed) if p.item.injected is None}
    for n, p in enumerate(placed):
        if p.item.kind == "label" or p.item.injected in ("duplicate", "conflict"):
            assert n > place[p.item.transaction_id], "nothing precedes the transaction it is about"
    for p in placed:
        if p.item.injected == "duplicate":
            assert p.item._replace(injected=None) in items
        if p.item.injected == "conflict":
            assert p.item.body != items[[i.id for i in items].index(p.item.id)].body


def test_the_same_seed_injects_the_same():
    plan = Injection(0.1, 0.1, 0.1, 0.1, seed=4)
    assert inject(stream(300), plan) == inject(stream(300), plan)
    assert inject(stream(300), plan)[0] != inject(stream(300), Injection(0.1, 0.1, 0.1, 0.1, seed=5))[0]


def test_shares_are_met():
    _, manifest = inject(stream(10_000, labelled=20_000), Injection(0.02, 0.01, 0.02, 0.01, seed=1))
    assert manifest.duplicates["transaction"] == pytest.approx(200, rel=0.25)
    assert manifest.conflicts["transaction"] == pytest.approx(100, rel=0.35)
    assert manifest.disordered == pytest.approx(200, rel=0.25)
    assert manifest.malformed.total() == pytest.approx(100, rel=0.35)


@pytest.fixture(scope="module")
def payments():
    world = generate(WorldSpec(customers=100, days=3), 1).transactions.drop_columns(list(TRUTH))
    items = []
    for row in world.to_pylist():
        body = {name: value for name, value in row.items() if value is not None}
        name = row["transaction_id"]
        items.append(Item(row["time"], "transaction", name, name, b"k", msgspec.json.encode(body)))
    return items


def refusal(item: Item, newest_ms: int) -> tuple[str, str]:
    """The field and code with which the schema's own validation refuses a message."""
    schema = load("payments").schema
    try:
        event = parse_transaction(schema, rates(schema.base_currency), msgspec.json.decode(item.body))
        check_time(schema, event.time_ms, newest_ms=newest_ms, now_ms=newest_ms)
    except msgspec.DecodeError:
        return "body", "malformed"
    except InvalidEvent as error:
        return error.field, error.code
    return "nothing", "accepted"


def test_every_malformed_message_is_refused_for_the_reason_that_the_manifest_gives(payments):
    placed, manifest = inject(payments, Injection(malformed=1.0), load("payments").schema)
    bad = [p.item for p in placed if p.item.injected]
    assert set(manifest.malformed) == set(SPOILS)
    assert [item.injected for item in bad] == [f"malformed:{fault.kind}" for fault in manifest.faults]
    newest_ms = payments[-1].time_ms
    found = [refusal(item, newest_ms) for item in bad]
    assert found == [(fault.field, fault.code) for fault in manifest.faults]


def test_a_schema_without_currency_or_category_still_has_malformed_messages():
    bare = Schema("bare", (Field("who", "text"),), (Entity("who", ("who",)),), "who", "who", amount=None)
    good = Item(
        1, "transaction", "a", "a", b"", msgspec.json.encode({"transaction_id": "a", "time": 1, "who": "x"})
    )
    kinds = {spoil(good, bare, number, random.Random(number))[1].kind for number in range(40)}
    assert {"broken_json", "card_number", "future"} <= kinds
    assert not kinds & {"unknown_currency", "negative_amount", "missing_field", "unknown_value"}


def test_shares_outside_zero_and_one_are_refused():
    with pytest.raises(ValueError, match="disorder is a share"):
        Injection(disorder=1.5)
