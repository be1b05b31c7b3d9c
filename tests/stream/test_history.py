"""Any Parquet file with a schema becomes messages in event-time order."""

import random
from pathlib import Path

import msgspec
import pytest

from features import load
from features.column import InvalidHistory
from stream.replay.history import History, extent, labels, transactions, typed
from stream.replay.merge import merged
from stream.world.spec import WorldSpec
from stream.world.tables import TRUTH
from stream.world.world import generate, write_history
from tests.stream.histories import PARCELS, START_MS, parcel, write_parcels, write_returns


def read(history: History, **options):
    return list(merged(history, extent(history), **options))


def test_columns_are_mapped_and_converted(tmp_path):
    rows = [parcel(7, 0, depot=None, PRICE=0.29, weight=float("nan"), INSURED=0)]
    [item] = read(History(write_parcels(tmp_path / "p.parquet", rows), PARCELS))
    assert msgspec.json.decode(item.body) == {
        "transaction_id": "7",
        "time": START_MS,
        "amount": 29,
        "sender": "1",
        "speed": "slow",
        "insured": False,
    }
    assert (item.time_ms, item.kind, item.id, item.key) == (START_MS, "transaction", "7", b"1")


def test_entities_are_filled_where_asked_for_and_pairs_need_both_parts(tmp_path):
    rows = [parcel(1, 0, sender=5, depot=9), parcel(2, 1, sender=5, depot=None)]
    items = read(History(write_parcels(tmp_path / "p.parquet", rows), PARCELS), entities=True)
    assert [item.entities for item in items] == [("sender=5", "depot=d9", "lane=5|d9"), ("sender=5",)]


def test_an_unordered_file_is_sorted_and_ties_keep_the_file_order(tmp_path):
    times = [5, 3, 3, 9, 1, 3, 8, 1]
    rows = [parcel(number, at) for number, at in enumerate(times)]
    history = History(write_parcels(tmp_path / "p.parquet", rows), PARCELS)
    assert not extent(history).ordered
    expected = [str(n) for n, _ in sorted(enumerate(times), key=lambda entry: entry[1])]
    assert [item.id for item in read(history)] == expected


def test_labels_arrive_by_their_own_column_and_may_be_withdrawn(tmp_path):
    rows = [
        parcel(1, 0, LOST=True, LOST_AT=START_MS + 30),
        parcel(2, 10, LOST=True),  # never reported
        parcel(3, 20, LOST_AT=START_MS + 25, FOUND_AT=START_MS + 40),
        parcel(4, 60),
    ]
    history = History(write_parcels(tmp_path / "p.parquet", rows), PARCELS)
    found = [msgspec.json.decode(item.body) for item in labels(history, extent(history))]
    assert [(row["transaction_id"], row["time"] - START_MS, row["fraud"]) for row in found] == [
        ("3", 25, True),
        ("1", 30, True),
        ("3", 40, False),
    ]
    assert len({row["label_id"] for row in found}) == 3


def test_a_fixed_delay_takes_the_place_of_the_label_times(tmp_path):
    rows = [parcel(1, 0, LOST=True, LOST_AT=START_MS + 5), parcel(2, 10, LOST=True), parcel(3, 500)]
    history = History(write_parcels(tmp_path / "p.parquet", rows), PARCELS, label_delay_ms=100)
    found = [(item.transaction_id, item.time_ms - START_MS) for item in labels(history, extent(history))]
    assert found == [("1", 100), ("2", 110)]


def test_at_the_same_millisecond_transactions_come_before_events_before_labels(tmp_path):
    #        0     10    20            the label and the event of parcel 1 at the moment of parcel 3
    #        1     2     3
    #                    E1 L1
    rows = [parcel(1, 0, LOST=True, LOST_AT=START_MS + 20), parcel(2, 10), parcel(3, 20)]
    events = write_returns(tmp_path / "e.parquet", [("e1", 1, 20)])
    history = History(write_parcels(tmp_path / "p.parquet", rows), PARCELS, events)
    assert [(item.kind, item.transaction_id) for item in read(history)] == [
        ("transaction", "1"),
        ("transaction", "2"),
        ("transaction", "3"),
        ("event", "1"),
        ("label", "1"),
    ]


def test_events_are_keyed_by_their_transaction_also_where_the_file_does_not_say(tmp_path):
    rows = [parcel(1, 0, sender=11), parcel(2, 10, sender=22), parcel(3, 90, sender=33)]
    history = History(
        write_parcels(tmp_path / "p.parquet", rows),
        PARCELS,
        write_returns(tmp_path / "e.parquet", [("late", 1, 50), ("soon", 2, 30)]),
    )
    found = [(item.id, item.key) for item in read(history) if item.kind == "event"]
    assert found == [("soon", b"22"), ("late", b"11")]


def test_bounds_leave_out_what_belongs_to_transactions_outside(tmp_path):
    rows = [parcel(n, n * 10, sender=n, LOST=True, LOST_AT=START_MS + n * 10 + 15) for n in range(1, 8)]
    events = write_returns(tmp_path / "e.parquet", [(f"e{n}", n, n * 10 + 12) for n in range(1, 8)])
    history = History(
        write_parcels(tmp_path / "p.parquet", rows),
        PARCELS,
        events,
        from_ms=START_MS + 30,
        until_ms=START_MS + 60,
    )
    items = read(history)
    assert {item.transaction_id for item in items} == {"3", "4", "5"}
    assert max(item.time_ms for item in items) < START_MS + 60
    assert extent(history).transactions == 3


def test_what_a_topic_carries_names_its_type(tmp_path):
    rows = [parcel(1, 0, LOST=True, LOST_AT=START_MS + 5), parcel(2, 9)]
    history = History(write_parcels(tmp_path / "p.parquet", rows), PARCELS)
    bodies = [msgspec.json.decode(typed(item)) for item in read(history)]
    assert [body.get("type") for body in bodies] == [None, "label", None]


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    row = parcel(1, 0)
    del row["FROM"]
    history = History(write_parcels(tmp_path / "p.parquet", [row]), PARCELS)
    with pytest.raises(InvalidHistory, match=r"no column 'FROM'; there are PARCEL, POSTED"):
        read(history)
    with pytest.raises(InvalidHistory, match="nowhere"):
        extent(History(Path("nowhere.parquet"), PARCELS))


def test_a_payments_world_comes_back_as_it_was_generated(tmp_path):
    world = generate(WorldSpec(customers=200, days=5, disputed_share=0.05, label_delay_scale=0.1), 6)
    path, beside = write_history(world, tmp_path / "w.parquet")
    items = read(History(path, load("payments").schema, beside))
    sent = [msgspec.json.decode(item.body) for item in items if item.kind == "transaction"]
    rows = world.transactions.drop_columns(list(TRUTH)).to_pylist()
    assert sent == [{name: value for name, value in row.items() if value is not None} for row in rows]
    events = [msgspec.json.decode(item.body) for item in items if item.kind == "event"]
    last = rows[-1]["time"]
    columns = ["event_id", "transaction_id", "time", "kind", "amount"]
    expected = [row for row in world.events.select(columns).to_pylist() if row["time"] <= last]
    assert events == [{name: value for name, value in row.items() if value is not None} for row in expected]
    label_times = [t for t in world.transactions["label_time"].to_pylist() if t is not None and t <= last]
    back = [t for t in world.transactions["label_withdrawn_time"].to_pylist() if t is not None and t <= last]
    assert sum(item.kind == "label" for item in items) == len(label_times) + len(back)


def test_streaming_and_sorting_give_the_same_messages(tmp_path):
    rows = [parcel(n, n * 7, sender=n % 5) for n in range(200)]
    shuffled = random.Random(1).sample(rows, len(rows))
    in_order = History(write_parcels(tmp_path / "a.parquet", rows, row_group=16), PARCELS)
    mixed = History(write_parcels(tmp_path / "b.parquet", shuffled, row_group=16), PARCELS)
    one, other = (list(transactions(history, extent(history))) for history in (in_order, mixed))
    assert one == other
