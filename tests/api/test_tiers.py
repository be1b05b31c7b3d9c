"""Hot and warm: old decisions move, are found, and survive a death between any two steps."""

import itertools
import json
import subprocess
import sys
from datetime import UTC, datetime

import duckdb
import pytest

from api.engine import QueryStoreUnavailable
from api.metrics import Metrics
from api.past.mover import Mover
from api.past.search import Search
from api.past.store import SqlStore
from api.past.tier import Tiers
from api.past.warm import DAY_MS, WarmBusy, WarmMissing, WarmStore, day_of
from api.query_store import Logged
from api.record import encode_json
from tests.api.processes import wait_for
from tests.parts import ROOT

START_MS = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1_000)
HOUR_MS = 3_600_000


def decision(number, **changes):
    """One per hour."""
    at_ms = START_MS + number * HOUR_MS
    return {"type": "decision", "id": f"t{number:04}", "time_ms": at_ms - 5, "decided_ms": at_ms, "score": 7,
            "outcome": "approve", "entities": {"card": f"p{number % 3}"},
            "rules": [{"id": "r", "result": "hit"}], "reasons": []} | changes  # fmt: skip


def logged(record, offset, topic="decisions"):
    return Logged(topic, 0, offset, encode_json(record))


LOG = [logged(decision(number), number) for number in range(24 * 5)]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.parts)])
def address(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'query.sqlite'}"
    return request.getfixturevalue("postgres").database()


@pytest.fixture
def store(address, tmp_path):
    made = SqlStore.open(address, tmp_path / "warm", migrating=True)
    made.project(LOG, {("decisions", 0): len(LOG)})
    yield made
    made.close()


def move(store, directory, days=3, **more):
    """Keep what was decided from the third day on."""
    return Tiers(store, directory, piece=7, **more).run(keep_from_ms=START_MS + days * DAY_MS)


def hot(store):
    return [r["id"] for r in store.search(Search(), None, 200).records]


def everything_is_there_once(store):
    assert all(store.record(f"t{n:04}") == decision(n) for n in range(len(LOG)))
    assert store.record("t9999") is None


def test_whole_days_move_and_are_still_found(store, tmp_path):
    #  1 March   2 March   3 March | 4 March   5 March
    #  ------- moved, by day ----- | ------ hot -------
    done = move(store, tmp_path / "warm")
    assert (done.decisions, done.files, done.doubled) == (72, 3, 0)
    assert hot(store) == [f"t{n:04}" for n in range(119, 71, -1)]
    assert [name.split("/")[0] for name in WarmStore(tmp_path / "warm").files()] == [
        "day=2026-03-01", "day=2026-03-02", "day=2026-03-03",
    ]  # fmt: skip
    everything_is_there_once(store)
    assert len(store.search(Search(entity=("card", "p1")), None, 200).records) == 16
    again = move(store, tmp_path / "warm")
    assert (again.decisions, again.files) == (0, 0)


def test_any_tool_reads_the_files(store, tmp_path):
    move(store, tmp_path / "warm")
    query = "SELECT day, count(*), min(outcome), min(terms[1]) FROM read_parquet(?, hive_partitioning=true)"
    with duckdb.connect() as database:
        files = str(tmp_path / "warm" / "decisions" / "*" / "*.parquet")
        found = database.execute(f"{query} GROUP BY day ORDER BY day", [files]).fetchall()
    assert [row[1:] for row in found] == [(24, "approve", "entity:card=p0")] * 3


def test_labels_follow_decisions_that_have_moved(store, tmp_path):
    move(store, tmp_path / "warm")
    label = {"type": "label", "id": "l", "transaction_id": "t0001", "time_ms": 1, "fraud": True}
    assert store.project([logged(label, 0, "labels")], {}) == []
    assert store.labels_of("t0001") == [label]


def test_what_comes_late_for_a_day_that_has_moved_moves_as_well(store, tmp_path):
    move(store, tmp_path / "warm")
    store.project([logged(decision(3, id="late"), 500), LOG[5]], {})
    done = move(store, tmp_path / "warm")
    assert (done.decisions, done.files, done.doubled) == (2, 1, 0)
    assert store.record("late")["time_ms"] == decision(3)["time_ms"]
    everything_is_there_once(store)


def test_a_second_decision_of_one_that_has_moved_is_kept_apart(store, tmp_path):
    move(store, tmp_path / "warm")
    store.project([logged(decision(5, score=8), 500)], {})
    for doubled in (1, 0):
        assert move(store, tmp_path / "warm").doubled == doubled
    assert store.counts()["doubled"] == 1
    everything_is_there_once(store)


def test_a_rebuilt_store_adopts_the_files_that_are_there(store, tmp_path, request):
    move(store, tmp_path / "warm")
    files = WarmStore(tmp_path / "warm").files()
    again = SqlStore.open(f"sqlite:///{tmp_path / 'again.sqlite'}", tmp_path / "warm")
    #  the log's retention has passed for the first two days: only the warm store has them
    again.project(LOG[48:], {})
    assert again.record("t0001") is None
    done = move(again, tmp_path / "warm")
    assert (done.decisions, done.files) == (24, 0)
    assert WarmStore(tmp_path / "warm").files() == files
    everything_is_there_once(again)
    again.close()


@pytest.mark.parametrize("pieces", range(14))
def test_a_run_that_ends_after_any_number_of_pieces_loses_nothing_and_is_finished_later(
    store, tmp_path, pieces
):
    steps = itertools.count()
    move(store, tmp_path / "warm", stopping=lambda: next(steps) >= pieces)
    everything_is_there_once(store)
    move(store, tmp_path / "warm")
    everything_is_there_once(store)
    assert len(hot(store)) == 48
    assert store.counts()["doubled"] == 0


def test_kill_9_at_any_moment_loses_nothing(tmp_path):
    url = f"sqlite:///{tmp_path / 'query.sqlite'}"
    store = SqlStore.open(url, tmp_path / "warm")
    log = [logged(decision(n // 20, id=f"t{n:05}"), n) for n in range(2_400)]
    store.project(log, {})
    script = (
        "import sys; from pathlib import Path\n"
        "from api.past.store import SqlStore; from api.past.tier import Tiers\n"
        "store = SqlStore.open(sys.argv[1], Path(sys.argv[2]))\n"
        "print('go', flush=True)\n"
        f"Tiers(store, Path(sys.argv[2]), piece=5).run(keep_from_ms={START_MS + 4 * DAY_MS})\n"
        "print('done', flush=True)\n"
    )
    killed = 0
    for wait_ms in (5, 30, 60, 90, 150, 250, 400, 30_000):
        process = subprocess.Popen(
            [sys.executable, "-c", script, url, str(tmp_path / "warm")], cwd=ROOT, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        try:
            process.wait(wait_ms / 1_000)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        process.stdout.close()
        assert all(store.record(f"t{n:05}") is not None for n in range(0, 2_400, 7))
    assert killed >= 3
    assert process.returncode == 0
    assert store.counts()["decision"] == 480
    assert all(encode_json(store.record(f"t{n:05}")) == log[n].payload for n in range(2_400))
    store.close()


def test_a_file_that_is_gone_or_broken_is_named_and_nothing_is_removed(store, tmp_path):
    move(store, tmp_path / "warm")
    name = WarmStore(tmp_path / "warm").files()[0]
    place = tmp_path / "warm" / "decisions" / name
    kept = place.read_bytes()
    place.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(QueryStoreUnavailable, match="part-"):
        store.record("t0001")
    store.project([LOG[1]], {})
    with pytest.raises(WarmMissing, match="part-"):
        move(store, tmp_path / "warm")
    assert store.record("t0001") == decision(1)
    place.write_bytes(kept)
    move(store, tmp_path / "warm")
    everything_is_there_once(store)


def test_one_mover_at_a_time_and_a_draft_is_no_file(store, tmp_path):
    warm = WarmStore(tmp_path / "warm")
    with warm.alone(), pytest.raises(WarmBusy):
        move(store, tmp_path / "warm")
    folder = tmp_path / "warm" / "decisions" / f"day={day_of(START_MS)}"
    folder.mkdir(parents=True)
    (folder / "draft").write_bytes(b"half of a file")
    assert warm.files() == []
    move(store, tmp_path / "warm")
    everything_is_there_once(store)


def test_a_full_disk_removes_nothing(store, tmp_path):
    warm = tmp_path / "warm"
    (warm / "decisions").mkdir(parents=True)
    (warm / "decisions" / f"day={day_of(START_MS)}").write_text("a file where the directory would be")
    with pytest.raises(OSError, match="day="):
        move(store, warm)
    assert store.counts()["decision"] == len(LOG)


def test_the_projector_moves_at_intervals(store, address, tmp_path):
    metrics = Metrics()
    now_ms = START_MS + 5 * DAY_MS
    mover = Mover(address, tmp_path / "warm", 2, 0.05, metrics, lambda: now_ms)
    mover.start()
    try:
        wait_for(lambda: store.counts()["decision"] == 48)
        now_ms += DAY_MS
        wait_for(lambda: store.counts()["decision"] == 24)
    finally:
        mover.stop()
    assert b"cordon_moved_decisions_total 96.0" in metrics.text()
    everything_is_there_once(store)


def test_the_command_moves_once_and_says_what_it_did(store, address, tmp_path):
    command = [
        sys.executable, "-m", "cordon.main", "store", "tier", "--url", address, "--warm",
        str(tmp_path / "warm"), "--hot-days", "1", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout)["decisions"] == len(LOG)
    assert hot(store) == []
    everything_is_there_once(store)
