"""The query store on both databases: idempotent, positions beside records, doubled decisions reported."""

import sqlite3
import threading

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from api.engine import QueryStoreUnavailable
from api.past.backend import backend_of
from api.past.migrate import SCRIPTS
from api.past.schema import VERSION
from api.past.search import Search
from api.query_store import Logged, open_store
from api.record import MalformedRecord, decode_json, encode_json

NEWEST = Search()


def decision(id="a", time_ms=1, **changes):
    return {"type": "decision", "id": id, "time_ms": time_ms, "decided_ms": time_ms + 5, "outcome": "approve",
            "score": 3, "entities": {"card": "p1", "merchant": "m1"}} | changes  # fmt: skip


def label(id, of, time_ms, fraud=True):
    return {"type": "label", "id": id, "transaction_id": of, "time_ms": time_ms, "fraud": fraud}


def event(id, of, time_ms):
    return {"type": "event", "id": id, "transaction_id": of, "time_ms": time_ms, "kind": "refunded"}


def logged(record, offset, topic="decisions"):
    return Logged(topic, 0, offset, encode_json(record))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.parts)])
def address(request, tmp_path):
    """Of an empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'sub' / 'query.sqlite'}"
    return request.getfixturevalue("postgres").database()


@pytest.fixture
def store(address):
    made = open_store(address, migrating=True)
    yield made
    made.close()


def ids(store, search=NEWEST, limit=100):
    return [r["id"] for r in store.search(search, None, limit).records]


def test_only_who_projects_keeps_many_pages_of_a_file(tmp_path):
    """A mapped file that cannot be read ends the process: not the one that decides."""
    address, found = f"sqlite:///{tmp_path / 'query.sqlite'}", []
    for writes in (True, False):
        engine = backend_of(address, writes=writes).engine
        with engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA cache_size").scalar()
            mapped = connection.exec_driver_sql("PRAGMA mmap_size").scalar()
        engine.dispose()
        found.append((pages, mapped))
    assert found == [(-65_536, 1 << 30), (-2_000, 0)]


def test_what_was_projected_is_found(store):
    records = [logged(decision(f"t{i}", i), i) for i in range(5)]
    assert store.project(records, {("decisions", 0): 5}) == []
    assert store.record("t3") == decision("t3", 3)
    assert store.record("none") is None
    assert ids(store, limit=2) == ["t4", "t3"]
    assert ids(store, Search(entity=("card", "p1")), 3) == ["t4", "t3", "t2"]
    assert ids(store, Search(entity=("card", "other"))) == []
    assert store.positions() == {("decisions", 0): 5}


def test_projecting_again_changes_nothing(store):
    records = [logged(decision(f"t{i}", i), i) for i in range(5)]
    records += [logged(label("l", "t1", 9), 0, "labels"), logged(event("e", "t1", 9), 0, "events")]
    for _ in range(3):
        assert store.project(records, {("decisions", 0): 5}) == []
        assert store.project(records + records, {("decisions", 0): 5}) == []
    assert store.counts() == {"decision": 5, "label": 1, "lifecycle": 1, "doubled": 0}


def test_a_doubled_decision_is_kept_apart_and_reported(store):
    store.project([logged(decision(), 0)], {("decisions", 0): 1})
    again = [logged(decision(outcome="decline"), 1), logged(decision(), 2)]
    assert store.project(again, {("decisions", 0): 3}) == ["a"]
    assert store.project(again, {("decisions", 0): 3}) == ["a"]
    assert store.record("a")["outcome"] == "approve"
    assert store.counts()["doubled"] == 1


def test_one_that_is_doubled_in_the_same_piece_is_kept_apart_as_well(store):
    piece = [logged(decision(), 0), logged(decision(), 1), logged(decision(outcome="decline"), 2)]
    assert store.project(piece, {("decisions", 0): 3}) == ["a"]
    assert store.record("a")["outcome"] == "approve"
    assert store.counts() == {"decision": 1, "label": 0, "lifecycle": 0, "doubled": 1}


def test_labels_and_lifecycle_events_of_a_transaction(store):
    store.project([logged(label("l", "a", 3), 0, "labels"), logged(event("e", "a", 2), 0, "events")], {})
    assert store.labels_of("a") == [label("l", "a", 3)]
    assert store.lifecycle_of("a") == [event("e", "a", 2)]


def test_the_newest_label_counts_in_whatever_order_the_topics_are_read(store):
    #  labels:     l2 (withdrawn, t=9)        l1 (fraud, t=3)
    #  decisions:                      a                        b: never labelled
    store.project([logged(label("l2", "a", 9, fraud=False), 0, "labels")], {})
    store.project([logged(decision("a"), 0), logged(decision("b"), 1)], {})
    assert ids(store, Search(label="legitimate")) == ["a"]
    store.project([logged(label("l1", "a", 3), 1, "labels")], {})
    assert ids(store, Search(label="legitimate")) == ["a"]
    assert ids(store, Search(label="fraud")) == []
    assert ids(store, Search(label="none")) == ["b"]
    store.project([logged(label("l3", "a", 10), 2, "labels")], {})
    assert ids(store, Search(label="fraud")) == ["a"]


def test_a_failed_projection_leaves_no_trace_and_names_the_place(store):
    bad = {"type": "decision", "id": "b"}
    with pytest.raises(MalformedRecord, match="decisions, partition 0, offset 1"):
        store.project([logged(decision(), 0), logged(bad, 1)], {("decisions", 0): 2})
    assert store.counts()["decision"] == 0
    assert store.positions() == {}


def test_two_projectors_at_once_store_everything_once(store, address):
    pieces = [[logged(decision(f"t{i}", i), i) for i in range(n, n + 40)] for n in range(0, 400, 20)]
    other = open_store(address, migrating=True)

    def write(target, mine):
        for piece in mine:
            target.project(piece, {("decisions", 0): piece[-1].offset + 1})

    threads = [threading.Thread(target=write, args=(target, pieces)) for target in (store, other)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert len(ids(store)) <= 420
    for thread in threads:
        thread.join()
    other.close()
    assert store.counts() == {"decision": 420, "label": 0, "lifecycle": 0, "doubled": 0}


def test_a_store_that_was_dropped_is_rebuilt_from_the_log_and_equal(store, address, tmp_path, request):
    log = [logged(decision(f"t{i}", i, outcome="review" if i % 3 else "decline"), i) for i in range(50)]
    log += [logged(label(f"l{i}", f"t{i}", i, fraud=i % 2 == 0), i, "labels") for i in range(0, 50, 5)]
    log += [logged(decision("t7", 7, score=4), 50), logged(event("e", "t3", 9), 0, "events")]
    for start in range(0, len(log), 7):
        store.project(log[start : start + 7], {("decisions", 0): start})
    other = (
        f"sqlite:///{tmp_path / 'again.sqlite'}"
        if address.startswith("sqlite")
        else request.getfixturevalue("postgres").database()
    )
    again = open_store(other, migrating=True)
    assert again.positions() == {}
    again.project(log, store.positions())
    searches = [NEWEST, Search(entity=("card", "p1")), Search(label="fraud"), Search(outcome="review")]
    for search in searches:
        assert again.search(search, None, 100) == store.search(search, None, 100)
    assert again.counts() == store.counts() == {"decision": 50, "label": 10, "lifecycle": 1, "doubled": 1}
    again.close()


def test_ids_of_any_script_are_stored_and_ordered_by_their_bytes(store):
    names = ["Z", "a", "ä", "z", "日本", "tx 1", 'q"uote', "back\\slash", "\U0001f600"]
    store.project([logged(decision(name, 1), i) for i, name in enumerate(names)], {})
    assert ids(store) == sorted(names, key=lambda name: name.encode(), reverse=True)
    assert all(store.record(name)["id"] == name for name in names)


def test_an_address_that_cannot_be_opened_says_so_without_its_password(tmp_path, ports):
    (tmp_path / "file").write_text("")
    with pytest.raises(QueryStoreUnavailable):
        open_store(f"sqlite:///{tmp_path / 'file' / 'query.sqlite'}")
    with pytest.raises(QueryStoreUnavailable) as refused:
        open_store(f"postgresql://user:word-of-honour@127.0.0.1:{ports.take()}/none")
    assert "word-of-honour" not in str(refused.value)
    with pytest.raises(ValueError, match="write sqlite:///PATH or postgresql://") as wrong:
        open_store("mysql://user:word-of-honour@host/x")
    assert "word-of-honour" not in str(wrong.value)


OLD = """
CREATE TABLE decision (
    id TEXT PRIMARY KEY, time_ms INTEGER NOT NULL, decided_ms INTEGER NOT NULL, outcome TEXT NOT NULL,
    score INTEGER, record BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX decision_recent ON decision (decided_ms DESC);
CREATE TABLE decision_entity (
    entity TEXT NOT NULL, pseudonym TEXT NOT NULL, time_ms INTEGER NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (entity, pseudonym, time_ms, id)) WITHOUT ROWID;
CREATE TABLE label (
    id TEXT PRIMARY KEY, transaction_id TEXT NOT NULL, time_ms INTEGER NOT NULL, fraud INTEGER NOT NULL,
    record BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX label_of ON label (transaction_id);
CREATE TABLE lifecycle (
    id TEXT PRIMARY KEY, transaction_id TEXT NOT NULL, time_ms INTEGER NOT NULL, kind TEXT NOT NULL,
    record BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX lifecycle_of ON lifecycle (transaction_id);
CREATE TABLE doubled (
    id TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, "offset" INTEGER NOT NULL,
    record BLOB NOT NULL, PRIMARY KEY (topic, partition, "offset")) WITHOUT ROWID;
CREATE TABLE position (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)) WITHOUT ROWID;
"""


def test_a_file_from_before_there_were_versions_becomes_what_a_new_one_would_be(tmp_path):
    told = {"rules": [{"id": "r1", "result": "hit"}, {"id": "r2", "result": "no_hit"}],
            "reasons": [{"code": "c1", "text": "x", "weight": 1.0}]}  # fmt: skip
    log = [logged(decision(f"t{i}", i, **told), i) for i in range(30)]
    log += [logged(label("l1", "t4", 8), 0, "labels"), logged(label("l2", "t4", 9, fraud=False), 1, "labels")]
    old = sqlite3.connect(tmp_path / "old.sqlite")
    old.executescript(OLD)
    for entry in log:
        record = decode_json(entry.payload)
        if record["type"] == "label":
            row = record["id"], record["transaction_id"], record["time_ms"], record["fraud"], entry.payload
            old.execute("INSERT INTO label VALUES (?, ?, ?, ?, ?)", row)
            continue
        own = record["id"], record["time_ms"], record["decided_ms"], record["outcome"], record["score"]
        old.execute("INSERT INTO decision VALUES (?, ?, ?, ?, ?, ?)", (*own, entry.payload))
        for pair in record["entities"].items():
            row = (*pair, record["time_ms"], record["id"])
            old.execute("INSERT INTO decision_entity VALUES (?, ?, ?, ?)", row)
    old.execute("INSERT INTO position VALUES ('decisions', 0, 30)")
    old.commit()
    old.close()
    with pytest.raises(QueryStoreUnavailable, match="start the projector, or run `cordon store migrate`"):
        open_store(f"sqlite:///{tmp_path / 'old.sqlite'}")
    upgraded = open_store(f"sqlite:///{tmp_path / 'old.sqlite'}", migrating=True)
    fresh = open_store(f"sqlite:///{tmp_path / 'fresh.sqlite'}")
    fresh.project(log, {("decisions", 0): 30})
    terms = [Search(rule="r1"), Search(rule="r2"), Search(reason="c1"), Search(entity=("merchant", "m1"))]
    for search in [NEWEST, *terms, Search(label="legitimate"), Search(label="fraud")]:
        assert upgraded.search(search, None, 50) == fresh.search(search, None, 50), search
    assert upgraded.positions() == fresh.positions()
    assert upgraded.project(log, {}) == []
    assert upgraded.counts() == fresh.counts()
    upgraded.close()
    fresh.close()
    shapes, kept = [], []
    for name in ("old.sqlite", "fresh.sqlite"):
        file = sqlite3.connect(tmp_path / name)
        shapes.append(sorted(file.execute("SELECT type, name FROM sqlite_master").fetchall()))
        kept.append(file.execute("SELECT place, id FROM decision ORDER BY place").fetchall())
        file.close()
    assert shapes[0] == shapes[1]
    assert kept[0] == kept[1] == [(5 + i << 20, f"t{i}") for i in range(30)]


def test_a_reader_of_a_server_without_the_schema_is_told_what_to_do(postgres):
    address = postgres.database()
    with pytest.raises(QueryStoreUnavailable, match="run `cordon store migrate`"):
        open_store(address)
    open_store(address, migrating=True).close()
    open_store(address).close()


def test_a_schema_that_a_newer_version_made_is_left_alone(store, address):
    store.project([logged(decision(), 0)], {})
    change = "UPDATE alembic_version SET version_num = '9999'"
    if address.startswith("sqlite"):
        connection = sqlite3.connect(address.removeprefix("sqlite:///"))
        connection.execute(change)
        connection.commit()
        connection.close()
    else:
        with psycopg.connect(address) as server:
            server.execute(change)
    older = open_store(address, migrating=True)
    assert older.project([logged(decision("b"), 1)], {}) == []
    assert older.record("a") is not None
    older.close()


def test_the_code_names_the_newest_migration():
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    assert ScriptDirectory.from_config(config).get_current_head() == VERSION
