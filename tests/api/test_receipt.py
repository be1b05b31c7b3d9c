"""What a claim keeps of a record."""

import json

import pytest

from api.record import encode_json, receipt
from tests.api.world import Bench, transaction

KEPT = {
    "type", "v", "tenant", "id", "transaction_id", "decided_ms", "time_ms", "transaction", "entities",
    "marks", "outcome", "score", "reasons", "versions", "freshness", "degraded", "guard",
}  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"guard": "review"}, {"transaction_id": "t9"}])
def test_a_receipt_is_the_record_without_what_nobody_asks_a_claim_for(tmp_path, more):
    (answer,) = Bench(tmp_path).decide(transaction("t1"))
    record = {**answer.record, **more}
    payload = encode_json(record)
    kind, id_, kept = receipt(payload)
    assert (kind, id_) == ("decision", "t1")
    expected = {key: value for key, value in json.loads(payload).items() if key in KEPT}
    assert json.loads(kept) == {**expected, "receipt": True}
    assert "features" not in json.loads(kept)
