"""Reports of comparisons: what differs is counted, what cannot differ is a failure."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cordon.commands.parity import DATA_VARIABLE, command
from cordon.failure import Failure
from features.column import InvalidHistory
from features.parity import HISTORY, PUBLISHED, Published, compare, published

NAMES = ("a", "b")
NAN = np.nan


def matrix(*rows: tuple[float, float]) -> np.ndarray:
    return np.array(rows, np.float32)


GOOD = matrix((1, NAN), (2, 0.5), (3, 0.25))


def test_equal_matrices_hold() -> None:
    report = compare(NAMES, GOOD, GOOD.copy())
    assert report.holds
    assert report.as_json() == {
        "decisions": 3,
        "features": 2,
        "mismatch": 0,
        "missing": 0,
        "extra": 0,
        "excluded": 0,
        "null_share": {"a": 0.0, "b": 0.333333},
        "distinct": {"a": 3, "b": 2},
    }
    json.dumps(report.as_json())


def test_what_differs_is_counted_by_kind_and_feature() -> None:
    actual = matrix((1, 0.125), (NAN, 0.5), (np.nextafter(np.float32(3), np.float32(4)), 0.75))
    report = compare(NAMES, GOOD, actual)
    assert (report.mismatch, report.missing, report.extra) == (
        {"a": 1, "b": 1},
        {"a": 1, "b": 0},
        {"a": 0, "b": 1},
    )
    assert not report.holds


@pytest.mark.parametrize(
    "actual", [matrix((1, NAN), (2, 0.5), (3, 0.5)), matrix((1, 0), (2, 0.5), (3, 0.25))]
)
def test_one_difference_is_enough(actual: np.ndarray) -> None:
    assert not compare(NAMES, GOOD, actual).holds


def test_a_constant_or_absent_feature_proves_nothing() -> None:
    constant = matrix((1, 7), (2, 7))
    report = compare(NAMES, constant, constant)
    assert report.constant == ("b",)
    assert not report.holds
    absent = matrix((1, NAN), (2, NAN))
    assert compare(NAMES, absent, absent).constant == ("b",)


def test_nothing_compared_or_something_excluded_does_not_hold() -> None:
    assert not compare(NAMES, GOOD[:0], GOOD[:0]).holds
    assert not compare(NAMES, GOOD, GOOD, excluded=1).holds


def test_matrices_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="for 2 features"):
        compare(NAMES, GOOD, GOOD[:2])
    with pytest.raises(ValueError, match="for 1 features"):
        compare(("a",), GOOD, GOOD)


@pytest.mark.parametrize(
    ("mismatch", "tied", "holds"), [(0, 0, True), (41, 41, True), (42, 42, False), (1, 0, False)]
)
def test_only_ties_may_differ_from_the_published_reference(mismatch: int, tied: int, holds: bool) -> None:
    assert Published(100, mismatch, tied, {}).holds is holds


def handbook_files(folder: Path, wrong: dict[int, float]) -> None:
    """A small history, and its published features by loops over pairs. `wrong`: added to a mean of a row."""
    rng = random.Random(2)
    start_s = 1_522_540_800  # 2018-04-01
    seconds = sorted(rng.sample(range(40 * 86_400), 300))
    seconds[7] = seconds[6]
    customer = [rng.randrange(3) for _ in seconds]
    customer[7] = customer[6]
    terminal = [rng.randrange(4) for _ in seconds]
    cents = [rng.randrange(1, 30_000) for _ in seconds]
    fraud = [int(rng.random() < 0.2) for _ in seconds]
    rows = range(len(seconds))
    columns: dict[str, list[float]] = {"TRANSACTION_ID": list(rows)}
    moments = [datetime.fromtimestamp(start_s + s, UTC) for s in seconds]
    columns["TX_DURING_WEEKEND"] = [int(m.weekday() >= 5) for m in moments]
    columns["TX_DURING_NIGHT"] = [int(m.hour <= 6) for m in moments]
    week = 7 * 86_400
    for days in (1, 7, 30):
        own, delayed = [], []
        for r in rows:
            low = seconds[r] - days * 86_400
            own.append([i for i in rows if customer[i] == customer[r] and low < seconds[i] <= seconds[r]])
            old = [i for i in rows if low < seconds[i] + week <= seconds[r]]
            delayed.append([i for i in old if terminal[i] == terminal[r]])
        amounts = [[cents[i] / 100 for i in at] for at in own]
        columns[f"CUSTOMER_ID_NB_TX_{days}DAY_WINDOW"] = [len(at) for at in own]
        columns[f"CUSTOMER_ID_AVG_AMOUNT_{days}DAY_WINDOW"] = [sum(a) / len(a) for a in amounts]
        columns[f"TERMINAL_ID_NB_TX_{days}DAY_WINDOW"] = [len(at) for at in delayed]
        frauds = [sum(fraud[i] for i in at) for at in delayed]
        shares = [f / len(at) if at else 0 for f, at in zip(frauds, delayed, strict=True)]
        columns[f"TERMINAL_ID_RISK_{days}DAY_WINDOW"] = shares
    for row, by in wrong.items():
        columns["CUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW"][row] += by
    (folder / "fdh").mkdir()
    backwards = pa.table({name: pa.array(values[::-1]) for name, values in columns.items()})
    pq.write_table(backwards, folder / PUBLISHED)
    raw = {
        "TRANSACTION_ID": list(rows),
        "TX_DATETIME": pa.array([(start_s + s) * 10**9 for s in seconds], pa.timestamp("ns")),
        "CUSTOMER_ID": customer,
        "TERMINAL_ID": terminal,
        "TX_AMOUNT": [c / 100 for c in cents],
        "TX_FRAUD": fraud,
    }
    pq.write_table(pa.table(raw), folder / HISTORY)


def test_published_features_are_reproduced_but_for_ties(tmp_path: Path) -> None:
    handbook_files(tmp_path, {})
    found = published(tmp_path)
    assert found.rows == 300
    assert found.mismatch == found.tied == 1
    assert found.holds
    assert len(found.columns) == 14


def test_a_published_value_that_differs_beyond_rounding_is_found(tmp_path: Path) -> None:
    handbook_files(tmp_path, {20: 1e-8, 30: 1e-10})
    found = published(tmp_path)
    assert (found.mismatch, found.tied, found.holds) == (2, 1, False)
    assert found.columns["CUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW"] == 2


def test_a_reference_of_other_transactions_is_refused(tmp_path: Path) -> None:
    handbook_files(tmp_path, {})
    table = pq.read_table(tmp_path / PUBLISHED)
    pq.write_table(table.slice(1), tmp_path / PUBLISHED)
    with pytest.raises(InvalidHistory, match="its transactions are not those of"):
        published(tmp_path)
    (tmp_path / PUBLISHED).unlink()
    with pytest.raises(InvalidHistory, match="there is no such file"):
        published(tmp_path)


def test_the_command_prints_one_object_and_leaves_with_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handbook_files(tmp_path, {20: 1.0})
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    with pytest.raises(SystemExit) as left:
        command(reference=True, as_json=True)
    assert left.value.code == 1
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (printed["rows"], printed["mismatch"], printed["holds"]) == (300, 2, False)
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(Failure, match=DATA_VARIABLE):
        command(reference=True)
