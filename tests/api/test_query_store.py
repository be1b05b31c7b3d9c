"""The query store: idempotent, positions beside records, doubled decisions reported."""

import threading

import pytest

from api.engine import QueryStoreUnavailable
from api.query_store import Logged, open_store
from api.record import encode_json


def decision(id="a", time_ms=1, **changes):
    return {"type": "decision", "id": id, "time_ms": time_ms, "decided_ms": time_ms + 5, "outcome": "approve",
            "score": 3, "entities": {"card": "p1", "merchant": "m1"}} | changes  # fmt: skip


def logged(record, offset, topic="decisions"):
    return Logged(topic, 0, offset, encode_json(record))


@pytest.fixture
def store(tmp_path):
    made = open_store(f"sqlite:///{tmp_path / 'sub' / 'query.sqlite'}")
    yield made
    made.close()


def test_what_was_projected_is_found(store):
    records = [logged(decision(f"t{i}", i), i) for i in range(5)]
    assert store.project(records, {("decisions", 0): 5}) == []
    assert store.record("t3")["time_ms"] == 3
    assert store.record("none") is None
    assert [r["id"] for r in store.recent(2)] == ["t4", "t3"]
    assert [r["id"] for r in store.of_entity("card", "p1", 3)] == ["t4", "t3", "t2"]
    assert store.of_entity("card", "other", 3) == []
    assert store.positions() == {("decisions", 0): 5}


def test_projecting_again_changes_nothing(store):
    records = [logged(decision(f"t{i}", i), i) for i in range(5)]
    for _ in range(3):
        assert store.project(records, {("decisions", 0): 5}) == []
    assert store.counts() == {"decision": 5, "label": 0, "lifecycle": 0, "doubled": 0}


def test_a_doubled_decision_is_kept_apart_and_reported(store):
    store.project([logged(decision(), 0)], {("decisions", 0): 1})
    assert store.project([logged(decision(outcome="decline"), 1)], {("decisions", 0): 2}) == ["a"]
    assert store.record("a")["outcome"] == "approve"
    assert store.counts()["doubled"] == 1


def test_labels_and_lifecycle_events_of_a_transaction(store):
    label = {"type": "label", "id": "l", "transaction_id": "a", "time_ms": 3, "fraud": True}
    event = {"type": "event", "id": "e", "transaction_id": "a", "time_ms": 2, "kind": "refunded"}
    store.project([logged(label, 0, "labels"), logged(event, 0, "events")], {})
    assert [x["id"] for x in store.labels_of("a")] == ["l"]
    assert [x["id"] for x in store.lifecycle_of("a")] == ["e"]


def test_a_failed_projection_leaves_no_trace(store):
    bad = {"type": "decision", "id": "b"}
    with pytest.raises(KeyError):
        store.project([logged(decision(), 0), logged(bad, 1)], {("decisions", 0): 2})
    assert store.counts()["decision"] == 0
    assert store.positions() == {}


def test_readers_beside_the_projector(store):
    def write():
        for i in range(50):
            store.project([logged(decision(f"t{i}", i), i)], {("decisions", 0): i + 1})

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        assert len(store.recent(100)) <= 50
    thread.join()
    assert store.counts()["decision"] == 50


def test_a_path_that_cannot_be_opened_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(QueryStoreUnavailable):
        open_store(f"sqlite:///{tmp_path / 'file' / 'query.sqlite'}")
    with pytest.raises(ValueError, match="write sqlite:///PATH"):
        open_store("mysql://x")
