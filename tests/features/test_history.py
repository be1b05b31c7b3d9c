"""A history's columns mean what the door would make of the replayed events."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import DAY, HOUR, Entity, Field, Label, Schema, handbook, payments
from features.column import InvalidHistory
from features.event import identify, parse_transaction
from features.history import NEVER, History, load_history
from features.measure import FRAUD, TRANSACTION, WITHDRAWN
from features.offline import build
from features.rates import PER_EURO, rates
from stream.replay.history import History as Replayed
from stream.replay.history import extent, labels, transactions
from stream.world.spec import WorldSpec
from stream.world.world import generate as generate_world
from stream.world.world import write_history
from tests.features import till
from tests.features.scenario import EPOCH_MS, PSEUDONYMS, stream

LEDGER = Schema(
    "ledger",
    (
        Field("amount", "amount", required=True, column="VALUE"),
        Field("account", "text", required=True, column="ACC", length_max=20),
        Field("kind", "category", values=("in", "out")),
        Field("parts", "integer", minimum=0, maximum=9),
        Field("ratio", "number", minimum=-1, maximum=1),
        Field("urgent", "boolean"),
    ),
    (Entity("account", ("account",)),),
    primary="account",
    subject="account",
    id_column="ID",
    time_column="AT",
    amount_scale=100,
    label=Label("BAD"),
)


def ledger(**changed: Any) -> pa.Table:
    """Three valid rows with some columns changed."""
    columns: dict[str, Any] = {
        "ID": [1, 2, 3],
        "AT": [EPOCH_MS, EPOCH_MS + 1, EPOCH_MS + DAY],
        "VALUE": [57.16, 0.01, 1234.565],
        "ACC": [7, 7, 8],
        "kind": ["in", None, "out"],
        "parts": [1, None, 9],
        "ratio": [0.5, None, -1.0],
        "urgent": [True, None, False],
        "BAD": [0, 1, 0],
        **changed,
    }
    return pa.table({name: value for name, value in columns.items() if value is not None})


def load(table: pa.Table, folder: Path, **options: Any) -> History:
    pq.write_table(table, folder / "ledger.parquet")
    return load_history(folder / "ledger.parquet", LEDGER, **options)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small payments world on disk."""
    path = tmp_path_factory.mktemp("world") / "world.parquet"
    write_history(
        generate_world(WorldSpec(customers=60, days=40, disputed_share=0.01, fraud_share=0.02), 3), path
    )
    return path


def test_columns_are_mapped_scaled_and_typed(tmp_path: Path) -> None:
    history = load(ledger(), tmp_path)
    assert list(history.ids) == ["1", "2", "3"]
    assert history.values(0) == {
        "amount": 5716, "account": "7", "kind": "in", "parts": 1, "ratio": 0.5, "urgent": True
    }  # fmt: skip
    assert history.values(1) == {"amount": 1, "account": "7"}
    assert history.values(2)["amount"] == 123456
    np.testing.assert_array_equal(history.label, [False, True, False])
    np.testing.assert_array_equal(history.label_time_ms, [NEVER, EPOCH_MS + 1 + 7 * DAY, NEVER])
    np.testing.assert_array_equal(history.entity("account"), [0, 0, 1])


@pytest.mark.parametrize(
    "times",
    [
        pa.array([EPOCH_MS * 10**6, (EPOCH_MS + 1) * 10**6, (EPOCH_MS + 2) * 10**6], pa.timestamp("ns")),
        pa.array([EPOCH_MS, EPOCH_MS + 1, EPOCH_MS + 2], pa.timestamp("ms", "UTC")),
        pa.array([datetime.fromtimestamp((EPOCH_MS + i) / 1000, UTC).isoformat() for i in range(3)]),
        pa.array([float(EPOCH_MS), EPOCH_MS + 1, EPOCH_MS + 2], pa.float64()),
    ],
    ids=["ns", "ms", "iso", "float"],
)
def test_times_may_be_written_in_several_ways(times: pa.Array, tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        load(ledger(AT=times), tmp_path).time_ms, [EPOCH_MS, EPOCH_MS + 1, EPOCH_MS + 2]
    )


def test_absent_is_null_nan_or_empty_text(tmp_path: Path) -> None:
    changed = {
        "kind": ["", None, "in"],
        "parts": [float("nan"), None, 2.0],
        "ratio": [float("nan"), None, 0.0],
    }
    history = load(ledger(**changed), tmp_path)
    assert set(history.values(0)) == {"amount", "account", "urgent"}
    assert history.values(2)["parts"] == 2


def test_a_missing_optional_column_is_absent_everywhere(tmp_path: Path) -> None:
    history = load(ledger(kind=None, BAD=None), tmp_path)
    assert "kind" not in history.values(0)
    assert not history.label.any()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"VALUE": None}, "there is no column VALUE, which field amount needs"),
        ({"ID": None}, "there is no column ID"),
        ({"ID": ["a", None, "c"]}, "row 1, column ID: an id is required"),
        ({"ID": ["a", "b", "4111 1111 1111 1111"]}, "row 2, column ID: looks like a card number"),
        ({"AT": [EPOCH_MS, None, EPOCH_MS]}, "row 1, column AT: a time is required"),
        ({"AT": [EPOCH_MS, -5, EPOCH_MS]}, "row 1, column AT: is not an epoch time"),
        ({"AT": ["2024-01-01T00:00:00+00:00", "2024-01-01", "x"]}, "row 1, column AT: has no UTC offset"),
        ({"VALUE": [1.0, -0.01, 1.0]}, "row 1, column VALUE: below 0"),
        ({"VALUE": [1.0, 1.0, 1e9]}, "row 2, column VALUE: above 1e+08"),
        ({"VALUE": [1.0, None, 1.0]}, "row 1, column VALUE: required"),
        ({"VALUE": ["1", "2", "3"]}, "column VALUE: is string, field amount is a number"),
        ({"ACC": ["a", "b", "c" * 21]}, "row 2, column ACC: 21 characters, at most 20"),
        ({"ACC": ["a", "b\n", "c"]}, "row 1, column ACC: has control characters"),
        ({"ACC": ["a", "4111111111111111", "c"]}, "row 1, column ACC: looks like a card number"),
        ({"ACC": ["a", "", "c"]}, "row 1, column ACC: required"),
        ({"kind": ["in", "up", "out"]}, "row 1, column kind: 'up' is not one of: in, out"),
        ({"parts": [1, 2, 10]}, "row 2, column parts: above 9"),
        ({"parts": [1.5, 2, 3]}, "row 0, column parts: must be an integer"),
        ({"ratio": [0.0, 2.0, 0.0]}, "row 1, column ratio: above 1"),
        ({"ratio": [0.0, float("inf"), 0.0]}, "row 1, column ratio: must be finite"),
        ({"urgent": [0, 1, 2]}, "row 2, column urgent: above 1"),
    ],
)
def test_a_row_that_the_door_would_refuse_is_named(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidHistory, match=message.replace("+", r"\+")):
        load(ledger(**changed), tmp_path)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidHistory, match="there is no such file"):
        load_history(tmp_path / "nothing.parquet", LEDGER)
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(InvalidHistory, match="not a Parquet file"):
        load_history(tmp_path / "text.parquet", LEDGER)


def test_since_and_until_keep_a_part_with_its_events(world: Path) -> None:
    whole = load_history(world, payments.SCHEMA)
    since, until = int(whole.time_ms[len(whole) // 3]), int(whole.time_ms[len(whole) // 2])
    part = load_history(world, payments.SCHEMA, since=since, until=until)
    keep = (whole.time_ms >= since) & (whole.time_ms < until)
    assert list(part.ids) == list(whole.ids[keep])
    wanted = keep[whole.events.row]
    assert list(part.events.ids) == list(whole.events.ids[wanted])
    assert list(part.ids[part.events.row]) == list(whole.ids[whole.events.row[wanted]])
    np.testing.assert_array_equal(part.events.time_ms, whole.events.time_ms[wanted])


def test_an_event_of_an_unknown_transaction_is_named(world: Path, tmp_path: Path) -> None:
    table = pq.read_table(world)
    events = pq.read_table(world.with_suffix(".events.parquet"))
    pq.write_table(table.slice(1), tmp_path / "less.parquet")
    pq.write_table(events, tmp_path / "less.events.parquet")
    with pytest.raises(
        InvalidHistory, match=r"column transaction_id: less\.events\.parquet: there is no such"
    ):
        load_history(tmp_path / "less.parquet", payments.SCHEMA)


@pytest.mark.parametrize("source", ["world", "till"])
def test_every_row_is_what_the_door_makes_of_its_payload(source: str, world: Path, tmp_path: Path) -> None:
    if source == "world":
        schema, history = payments.SCHEMA, load_history(world, payments.SCHEMA)
    else:
        schema = till.SCHEMA
        history = stream(till.CATALOGUE, 5, 400, 0.2, (1, HOUR)).history(tmp_path)
    table = rates(schema.base_currency)
    for row in range(len(history)):
        parsed = parse_transaction(schema, table, json.loads(json.dumps(history.payload(row))))
        assert (parsed.id, parsed.time_ms) == (history.ids[row], history.time_ms[row])
        assert dict(parsed.values) == history.values(row)


@pytest.mark.parametrize("source", ["world", "ledger"])
def test_every_payload_is_what_a_replay_sends(source: str, world: Path, tmp_path: Path) -> None:
    if source == "world":
        path, schema = world, payments.SCHEMA
    else:
        path, schema = tmp_path / "ledger.parquet", LEDGER
        pq.write_table(ledger(), path)
    history = load_history(path, schema)
    replayed = Replayed(path, schema)
    sent = [json.loads(item.body) for item in transactions(replayed, extent(replayed))]
    assert sent == [history.payload(row) for row in range(len(history))]


@pytest.mark.parametrize("delay_ms", [None, 7 * DAY])
def test_labels_come_when_a_replay_sends_them(delay_ms: int | None, world: Path) -> None:
    replayed = Replayed(world, payments.SCHEMA, label_delay_ms=delay_ms, until_ms=EPOCH_MS * 2)
    sent = {
        (i.transaction_id, i.id.endswith(":fraud"), i.time_ms) for i in labels(replayed, extent(replayed))
    }
    history = load_history(world, payments.SCHEMA, label_delay_ms=delay_ms)
    expected = set()
    for fraud, times in ((True, history.label_time_ms), (False, history.withdrawn_ms)):
        rows = np.flatnonzero(times != NEVER)
        expected |= {(history.ids[row], fraud, int(times[row])) for row in rows}
    assert sent == expected
    assert (delay_ms is None) == any(not fraud for _, fraud, _ in expected)


def test_entities_are_partitioned_as_by_their_pseudonyms(world: Path) -> None:
    history = load_history(world, payments.SCHEMA)
    codes = {e.name: history.entity(e.name) for e in payments.SCHEMA.entities}
    seen: dict[tuple[str, str], int] = {}
    for row in range(0, len(history), 3):
        identity = identify(payments.CATALOGUE, PSEUDONYMS, history.values(row))
        for name, code in codes.items():
            assert (code[row] >= 0) == (name in identity.entities)
            if code[row] >= 0:
                known = seen.setdefault((name, identity.entities[name]), int(code[row]))
                assert known == code[row]
    assert len(set(seen.values())) < len(seen)
    for name in codes:
        own = [code for (entity, _), code in seen.items() if entity == name]
        assert len(own) == len(set(own))


def test_amounts_are_converted_as_at_the_door(tmp_path: Path) -> None:
    rng = random.Random(1)
    currencies = [rng.choice(list(PER_EURO)) for _ in range(2_000)]
    amounts = [rng.randrange(0, 200_000) for _ in currencies]
    columns = {
        "transaction_id": [f"t{i}" for i in range(len(amounts))],
        "time": [EPOCH_MS + i for i in range(len(amounts))],
        "amount": amounts,
        "currency": currencies,
        "merchant": ["m"] * len(amounts),
        "channel": ["pos"] * len(amounts),
        "category": ["fuel"] * len(amounts),
        "fraud": [False] * len(amounts),
    }
    pq.write_table(pa.table(columns), tmp_path / "many.parquet")
    history = load_history(tmp_path / "many.parquet", payments.SCHEMA)
    table = rates("EUR")
    assert history.original_amount is not None
    for row, (amount, currency) in enumerate(zip(amounts, currencies, strict=True)):
        assert history.values(row)["amount"] == table.convert(amount, currency)
        assert history.original_amount[row] == amount


@pytest.mark.parametrize(
    ("label", "reports"),
    [
        (Label("bad"), [EPOCH_MS + 7 * DAY, NEVER, NEVER]),
        (Label("bad", "known"), [EPOCH_MS + 5, NEVER, NEVER]),
        (Label("bad", "known", "back"), [EPOCH_MS + 5, EPOCH_MS + 9, NEVER]),
    ],
    ids=["delay", "time", "withdrawals"],
)
def test_what_counts_as_a_report(label: Label, reports: list[int], tmp_path: Path) -> None:
    schema = Schema(
        "s",
        (Field("amount", "amount"), Field("who", "text")),
        (Entity("who", ("who",)),),
        "who",
        "who",
        label=label,
    )
    columns = {
        "transaction_id": ["a", "b", "c"],
        "time": [EPOCH_MS] * 3,
        "who": ["x"] * 3,
        "bad": [True, False, False],
        "known": [EPOCH_MS + 5, EPOCH_MS + 9, None],
        "back": [None, EPOCH_MS + 9, EPOCH_MS + 3],
    }
    pq.write_table(pa.table(columns), tmp_path / "s.parquet")
    history = load_history(tmp_path / "s.parquet", schema)
    assert history.label_time_ms.tolist() == reports
    if label.withdrawn_column:
        assert history.withdrawn_ms.tolist() == [NEVER, EPOCH_MS + 10, NEVER]


def test_the_timeline_numbers_transactions_then_events_then_labels(world: Path) -> None:
    history = load_history(world, payments.SCHEMA)
    timeline = history.timeline
    assert timeline.sources == (TRANSACTION, *payments.SCHEMA.lifecycle, FRAUD, WITHDRAWN)
    assert (np.diff(np.minimum(timeline.source, 1)[: len(history) + 1]) >= 0).all()
    count = len(history) + len(history.events.row)
    count += int((history.label_time_ms != NEVER).sum()) + int((history.withdrawn_ms != NEVER).sum())
    assert len(timeline) == count
    assert (np.diff(timeline.time_ms[timeline.by_time()]) >= 0).all()


def test_the_handbooks_files_need_no_line_of_code(tmp_path: Path) -> None:
    columns = {
        "TRANSACTION_ID": pa.array([10, 11], pa.int64()),
        "TX_DATETIME": pa.array([31 * 10**9, 130 * 10**9], pa.timestamp("ns")),
        "CUSTOMER_ID": pa.array([596, 596], pa.int32()),
        "TERMINAL_ID": pa.array([3156, 3412], pa.int32()),
        "TX_AMOUNT": [57.16, 81.51],
        "TX_FRAUD": pa.array([0, 1], pa.int8()),
        "TX_FRAUD_SCENARIO": pa.array([0, 2], pa.int8()),
    }
    pq.write_table(pa.table(columns), tmp_path / "fdh.parquet")
    history = load_history(tmp_path / "fdh.parquet", handbook.SCHEMA)
    assert history.payload(1) == {
        "transaction_id": "11", "time": 130_000, "customer": "596", "terminal": "3412", "amount": 8151
    }  # fmt: skip
    assert build(handbook.CATALOGUE, history).values[1, 0] == 8151
