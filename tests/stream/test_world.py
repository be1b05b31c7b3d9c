"""The payments world: the same bytes for the same seed, honest shares, labels that come late, no leaks."""

import hashlib
import re
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features import load
from features.event import holds_card_number, parse_lifecycle, parse_transaction
from features.rates import rates
from stream.world.occasions import LOOKS_LIKE
from stream.world.spec import DAY_MS, HOUR_MS, WorldSpec
from stream.world.tables import EVENTS, TRANSACTIONS, TRUTH
from stream.world.vocabulary import (
    ATTACKS,
    CATEGORIES,
    CHANNELS,
    CURRENCIES,
    ENTRY_MODES,
    EVENT_KINDS,
    LOOKALIKES,
)
from stream.world.world import World, events_path, generate, write_history

SPEC = WorldSpec(customers=2_500, days=50)


@pytest.fixture(scope="module")
def world() -> World:
    return generate(SPEC, seed=11)


@pytest.fixture(scope="module")
def truth(world):
    return {name: np.array(world.transactions[name].to_pylist(), object) for name in TRUTH}


def digests(world: World, directory: Path) -> list[str]:
    paths = write_history(world, directory / "history.parquet")
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    spec = WorldSpec(customers=300, days=10)
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    for directory in (first, second, other):
        directory.mkdir()
    assert digests(generate(spec, 3), first) == digests(generate(spec, 3), second)
    assert set(digests(generate(spec, 3), first)).isdisjoint(digests(generate(spec, 4), other))


def test_a_history_on_disk_is_the_world(world, tmp_path):
    path, beside = write_history(world, tmp_path / "w.parquet")
    assert beside == events_path(path) == tmp_path / "w.events.parquet"
    assert pq.read_table(path).equals(world.transactions)
    assert pq.read_table(beside).equals(world.events)
    assert pq.read_schema(path).names == TRANSACTIONS.names
    assert pq.read_schema(beside).names == EVENTS.names


def test_transactions_and_events_are_in_event_time_order_inside_the_world(world):
    for table in (world.transactions, world.events):
        times = table["time"].to_numpy()
        assert (np.diff(times) >= 0).all()
        assert times[0] >= SPEC.start_ms
        assert times[-1] < SPEC.end_ms


def test_ids_are_distinct_and_opaque(world):
    table = world.transactions
    assert pc.count_distinct(table["transaction_id"]).as_py() == len(table)
    assert pc.count_distinct(world.events["event_id"]).as_py() == len(world.events)
    for name, prefix in (
        ("card", "cd"),
        ("customer", "cu"),
        ("merchant", "me"),
        ("device", "de"),
        ("terminal", "te"),
    ):
        values = pc.unique(table[name].drop_null()).to_pylist()
        assert all(re.fullmatch(rf"{prefix}_[a-z]{{16}}", value) for value in values)
        assert not any(holds_card_number(value) for value in values)
    assert all(
        re.fullmatch(r"10(\.\d{1,3}){3}", value) for value in pc.unique(table["ip"].drop_null()).to_pylist()
    )
    assert all(re.fullmatch(r"\d{6}", value) for value in pc.unique(table["bin"]).to_pylist())


def test_every_word_is_in_the_vocabulary_and_at_least_two_currencies_are_spent(world):
    table = world.transactions
    for name, words in (("category", CATEGORIES), ("channel", CHANNELS), ("entry", ENTRY_MODES)):
        assert set(pc.unique(table[name].drop_null()).to_pylist()) == set(words)
    assert set(pc.unique(world.events["kind"]).to_pylist()) == set(EVENT_KINDS)
    currencies = pc.value_counts(table["currency"]).to_pylist()
    assert {entry["values"] for entry in currencies} == set(CURRENCIES)
    assert sum(entry["counts"] > 0.03 * len(table) for entry in currencies) >= 2


def test_optional_parts_follow_from_the_channel(world):
    table = world.transactions
    channel = np.array(table["channel"].to_pylist())
    absent = {
        name: np.array(table[name].is_null()) for name in ("terminal", "device", "ip", "entry", "latitude")
    }
    street = np.isin(channel, ["pos", "atm"])
    assert (absent["terminal"] == ~street).all()
    assert (absent["latitude"] == ~street).all()
    assert (absent["ip"] == (channel != "ecom")).all()
    assert not absent["device"][channel == "ecom"].any()
    assert (absent["entry"] == (channel == "recurring")).all()
    assert (table["amount"].to_numpy() > 0).all()


def test_the_service_would_accept_every_transaction_and_event(world):
    schema = load("payments").schema
    base = rates(schema.base_currency)
    payload = world.transactions.drop_columns(list(TRUTH))
    for row in payload.slice(0, 3_000).to_pylist():
        parse_transaction(schema, base, {name: value for name, value in row.items() if value is not None})
    kept = world.events.select(["event_id", "transaction_id", "time", "kind", "amount"])
    for row in kept.slice(0, 3_000).to_pylist():
        parse_lifecycle(schema, {name: value for name, value in row.items() if value is not None})


def test_fraud_is_rare_and_every_kind_of_campaign_takes_place(world, truth):
    share = truth["fraud"].astype(bool).mean()
    assert 0.001 <= share <= 0.005
    fraud = truth["fraud"].astype(bool)
    assert set(truth["campaign_kind"][fraud]) == set(ATTACKS)
    assert all(name is None for name in truth["campaign"][~fraud])
    campaigns = set(truth["campaign"][fraud])
    assert all(re.fullmatch(r"[a-z_]+-\d+", name) for name in campaigns)
    assert all(
        kind == name.rsplit("-", 1)[0]
        for kind, name in zip(truth["campaign_kind"][fraud], truth["campaign"][fraud], strict=True)
    )


def test_every_attack_has_benign_look_alikes(truth):
    marked = np.array([name is not None for name in truth["lookalike"]])
    assert not (marked & truth["fraud"].astype(bool)).any()
    assert {name.rsplit("-", 1)[0] for name in truth["lookalike"][marked]} == set(LOOKALIKES)
    assert set(LOOKS_LIKE.values()) == set(ATTACKS)
    assert marked.sum() >= 2 * truth["fraud"].astype(bool).sum()


def test_a_schedule_of_campaigns_can_be_asked_for():
    spec = WorldSpec(customers=400, days=20, campaigns={"card_testing": 3, "device_ring": 2})
    table = generate(spec, 5).transactions
    names = set(table["campaign"].drop_null().to_pylist())
    assert names == {"card_testing-0", "card_testing-1", "card_testing-2", "device_ring-0", "device_ring-1"}


def test_skill_hides_an_attack():
    def night_share(skill: float) -> float:
        spec = WorldSpec(customers=2_000, days=30, skill=skill, campaigns={"account_takeover": 12})
        table = generate(spec, 8).transactions
        hours = table.filter(table["fraud"])["time"].to_numpy() // HOUR_MS % 24
        return float(((hours >= 23) | (hours < 5)).mean())

    assert night_share(1.0) < night_share(0.0) / 2


def test_labels_come_after_days_or_weeks_and_some_never(world, truth):
    fraud = truth["fraud"].astype(bool)
    label = np.array([-1 if value is None else value for value in truth["label_time"]], np.int64)
    times = world.transactions["time"].to_numpy()
    reported = fraud & (label >= 0)
    delay_days = (label - times)[reported] / DAY_MS
    assert delay_days.min() >= 6 / 24
    assert 1 <= np.median(delay_days) <= 15
    assert np.quantile(delay_days, 0.95) > 14
    assert 0.05 <= 1 - reported.sum() / fraud.sum() <= 0.3


def test_a_few_good_transactions_are_disputed_and_most_of_these_withdrawn():
    table = generate(WorldSpec(customers=1_000, days=40, disputed_share=0.01), 2).transactions
    good = table.filter(pc.invert(table["fraud"]))
    disputed = good.filter(pc.is_valid(good["label_time"]))
    assert 0.007 <= len(disputed) / len(good) <= 0.013
    back = disputed.filter(pc.is_valid(disputed["label_withdrawn_time"]))
    assert 0.65 <= len(back) / len(disputed) <= 0.95
    assert pc.all(pc.greater(back["label_withdrawn_time"], back["label_time"])).as_py()
    assert table.filter(table["fraud"])["label_withdrawn_time"].null_count == table["fraud"].to_numpy().sum()


def test_each_transaction_has_one_answer_of_the_issuer_after_itself(world):
    joined = world.events.join(
        world.transactions.select(["transaction_id", "amount", "currency"]).rename_columns(
            ["transaction_id", "paid", "currency"]
        ),
        "transaction_id",
    )
    assert pc.all(pc.greater(joined["time"], joined["transaction_time"])).as_py()
    kind = np.array(joined["kind"].to_pylist())
    answers = joined.filter(pa.array(np.isin(kind, ["issuer_approved", "issuer_declined"])))
    assert pc.count_distinct(answers["transaction_id"]).as_py() == len(answers)
    assert len(world.transactions) - len(answers) < 20  # answered after the world's end
    declined = set(joined.filter(pa.array(kind == "issuer_declined"))["transaction_id"].to_pylist())
    captured = set(joined.filter(pa.array(kind == "captured"))["transaction_id"].to_pylist())
    assert declined.isdisjoint(captured)
    assert 0.01 < len(declined) / len(world.transactions) < 0.08
    euros = np.array(joined["currency"].to_pylist()) == "EUR"  # events carry the base currency
    refunds = joined.filter(pa.array((kind == "refunded") & euros))
    captures = joined.filter(pa.array((kind == "captured") & euros))
    assert pc.all(pc.equal(captures["amount"], captures["paid"])).as_py()
    assert pc.all(pc.less_equal(refunds["amount"], refunds["paid"])).as_py()


def test_customers_have_favourites_sharing_households_and_several_cards(world):
    good = world.transactions.filter(pc.invert(world.transactions["fraud"]))
    pairs = good.group_by(["customer", "merchant"]).aggregate([("time", "count")])
    repeated = pc.sum(pc.if_else(pc.greater(pairs["time_count"], 2), pairs["time_count"], 0)).as_py()
    assert repeated / len(good) > 0.3
    devices = good.group_by("device").aggregate([("customer", "count_distinct")])
    assert pc.sum(pc.greater(devices["customer_count_distinct"], 1)).as_py() > 50
    cards = good.group_by("customer").aggregate([("card", "count_distinct")])
    assert pc.sum(pc.greater(cards["card_count_distinct"], 1)).as_py() > 0.25 * len(cards)
    shops = np.sort(good.group_by("merchant").aggregate([("time", "count")])["time_count"].to_numpy())[::-1]
    assert shops[: len(shops) // 10].sum() > 0.3 * shops.sum()


def test_at_least_ten_thousand_transactions_a_second():
    started = time.process_time()
    made = len(generate(WorldSpec(customers=5_000, days=30), 1).transactions)
    assert made / (time.process_time() - started) > 10_000


def test_sizes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="at least 50 customers"):
        WorldSpec(customers=3)
    with pytest.raises(ValueError, match="unknown campaign kinds"):
        WorldSpec(campaigns={"jaywalking": 1})
