"""What a claim keeps of a record, and how the whole is found."""

import gzip
import json

import pytest

from api.attempts import Attempts
from api.lookup import LookupUnavailable, find_decision
from api.query_store import open_store
from api.record import Location, decode_json, encode_json, receipt
from api.work import Inbound
from tests.api.world import NOW_MS, Bench, model, shipped_rules, transaction

KEPT = {
    "type", "v", "tenant", "id", "transaction_id", "decided_ms", "time_ms", "transaction", "entities",
    "marks", "outcome", "score", "reasons", "versions", "freshness", "degraded", "guard",
}  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"guard": "review"}, {"transaction_id": "t9"}])
def test_a_receipt_is_the_record_without_what_nobody_asks_a_claim_for(tmp_path, more):
    (answer,) = Bench(tmp_path).decide(transaction("t1"))
    record = {**answer.record, **more}
    kept = json.loads(receipt(record, Location("service-0", 3, 68)))
    expected = {key: value for key, value in json.loads(encode_json(record)).items() if key in KEPT}
    assert kept == {**expected, "receipt": ["service-0", 3, 68]}
    assert "features" not in kept


@pytest.mark.parametrize("guard", [None, "review"])
def test_a_claim_keeps_the_receipt_of_what_was_written(tmp_path, monkeypatch, guard):
    bench = Bench(tmp_path, serving=model(), rules=shipped_rules())
    monkeypatch.setattr(bench.judge.brake, "begin", lambda decisions, now_ms: guard)
    bench.decide(transaction("a"), transaction("b", amount=99_000), transaction('c"', currency="USD"))
    bench.decide({"label_id": "l", "transaction_id": "a", "time": NOW_MS, "fraud": True}, kind="label")
    for key in ("tx:a", "tx:b", 'tx:c"', "label:l"):
        (recorded,) = bench.engine.attempts.find([key]).values()
        claim = bench.store.claim(key)
        assert claim is not None
        assert claim.answer is not None
        assert decode_json(claim.answer) == decode_json(recorded.receipt)
        assert ("guard" in recorded.record) == (guard is not None and key.startswith("tx"))


def found(bench, id, *, past, journals=None):
    attempts = bench.engine.attempts if journals is None else Attempts(journals)
    return find_decision(id, bench.store, attempts, past)


def test_a_decision_is_found_whole_where_its_receipt_says_before_the_query_store_has_it(tmp_path):
    bench = Bench(tmp_path / "journals")
    query = open_store(f"sqlite:///{tmp_path / 'query.sqlite'}")
    (first,) = bench.decide(transaction("t0"))
    for number in range(1, 200):  # out of sight of who looks among the newest only
        bench.decide(transaction(f"t{number}"))
    (a, b) = bench.decide(transaction("a"), transaction("b"))
    for answer in (first, a, b):
        assert found(bench, answer.record["id"], past=lambda: query) == decode_json(
            encode_json(answer.record)
        )
    assert found(bench, "nobody", past=lambda: query) is None


def test_a_compressed_segment_is_read_too(tmp_path):
    bench = Bench(tmp_path / "journals")
    query = open_store(f"sqlite:///{tmp_path / 'query.sqlite'}")
    (answer,) = bench.decide(transaction("t0"))
    (segment,) = (tmp_path / "journals").rglob("*.segment")
    segment.with_name(segment.name + ".gz").write_bytes(gzip.compress(segment.read_bytes()))
    segment.unlink()
    assert found(bench, "t0", past=lambda: query)["decided_ms"] == answer.record["decided_ms"]


def test_a_decision_of_another_host_is_declared_to_be_out_of_reach(tmp_path):
    bench = Bench(tmp_path / "journals")
    query = open_store(f"sqlite:///{tmp_path / 'query.sqlite'}")
    bench.decide(transaction("t0"))
    with pytest.raises(LookupUnavailable, match="another host"):
        found(bench, "t0", past=lambda: query, journals=tmp_path)
    # A journal of the same name there has other records at that place, or none.
    other = Bench(tmp_path / "others")
    other.decide(transaction("t1"))
    with pytest.raises(LookupUnavailable, match="another host"):
        found(bench, "t0", past=lambda: query, journals=tmp_path / "others")


def test_a_decision_that_is_being_made_is_not_said_to_be_unknown(tmp_path):
    bench = Bench(tmp_path / "journals")
    query = open_store(f"sqlite:///{tmp_path / 'query.sqlite'}")
    flight = bench.engine.begin([Inbound("transaction", transaction("t0"), "http")], now_ms=bench.now_ms)
    bench.engine.record(flight)
    lost = tmp_path / "elsewhere"
    with pytest.raises(LookupUnavailable, match="being decided"):
        found(bench, "t0", past=lambda: query, journals=lost)
    bench.engine.answer(flight)
    assert found(bench, "t0", past=lambda: query)["id"] == "t0"


def test_claims_of_versions_that_kept_the_whole_are_understood(tmp_path):
    bench = Bench(tmp_path / "journals")
    query = open_store(f"sqlite:///{tmp_path / 'query.sqlite'}")
    (answer,) = bench.decide(transaction("t0"))
    key, claim = "tx:t0", bench.store.claim("tx:t0")
    assert claim is not None
    whole = encode_json(answer.record)
    bench.store.complete([(key, claim.owner, whole)])
    assert found(bench, "t0", past=lambda: query) == decode_json(whole)
    # Theirs shrank once the query store had the record.
    short = encode_json({"id": "t0", "receipt": True})
    bench.store.complete([(key, claim.owner, short)])
    assert found(bench, "t0", past=lambda: query)["id"] == "t0"
