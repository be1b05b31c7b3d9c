"""Alerts: a closed documented set; those that follow from records come once, whatever is killed."""

from pathlib import Path
from typing import get_args

import pytest

from api.alerts import CODES, SEVERITY, Severity, damaged, derived
from api.journal import Journal
from api.record import Envelope, Kind, encode_json, pack, unpack
from api.segment import name_of
from tests.api.brakes.test_brakes_live import alerts
from tests.api.processes import Processes, kill, wait_for

PAGE = Path("docs/alerts.md").read_text()


def record(id: str, outcome: str = "review", amount: int = 50_000, **more) -> dict:
    return {
        "id": id, "outcome": outcome, "decided_ms": 7, "transaction": {"amount": amount},
        "winner": {"id": "large"}, **more,
    }  # fmt: skip


def envelope(kind: Kind, value: dict) -> Envelope:
    return unpack(pack(kind, "k", encode_json(value)))


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_documented_with_its_severity(code):
    assert f"| `{code}` | {SEVERITY[code]} |" in PAGE
    assert SEVERITY[code] in get_args(Severity)


def test_what_follows_from_a_record():
    found = derived(envelope(Kind.ABANDONED, record("a", "approve")), None)
    assert found is not None
    assert (found.code, found.about["transaction_id"]) == ("abandoned_attempt", "a")
    large = derived(envelope(Kind.DECISION, record("b")), 50_000)
    assert large is not None
    assert (large.code, large.about["amount"]) == ("large_review", 50_000)
    quiet = [
        (record("c"), None), (record("d"), 50_001), (record("e", "decline"), 1),
        (record("f", "approve", note='"outcome":"review"'), 1), (record("g", amount=None), 1),  # type: ignore[arg-type]
    ]  # fmt: skip
    assert [derived(envelope(Kind.DECISION, value), limit) for value, limit in quiet] == [None] * 5
    assert damaged("x", 1).id == damaged("x", 2).id != damaged("y", 1).id


@pytest.mark.parts
def test_alerts_of_records_come_once_though_the_publisher_is_killed_and_of_damage_once_each(
    tmp_path, valkey, kafka
):
    processes = Processes(tmp_path, valkey.url, kafka.settings(), CORDON_ALERTS__REVIEW_AMOUNT_MIN="50000")
    journal = Journal(tmp_path / "journal" / "service-0", segment_bytes=1 << 20)
    try:
        for life in range(3):
            publisher = processes.start("api.publisher")
            for number in range(40):
                kind = Kind.ABANDONED if number % 4 == 0 else Kind.DECISION
                amount = 50_000 if number % 4 == 1 else 100
                journal.append([pack(kind, "k", encode_json(record(f"{life}-{number}", amount=amount)))])
            kill(publisher)
        processes.start("api.publisher")
        found = alerts(processes, 60)
        assert len({alert["id"] for alert in found}) == len(found) == 60
        assert {alert["code"] for alert in found} == {"abandoned_attempt", "large_review"}
        journal.close()
        segment = tmp_path / "journal" / "service-0" / name_of(1)
        raw = bytearray(segment.read_bytes())
        raw[len(raw) // 2] ^= 1
        segment.write_bytes(raw)
        fresh = Processes(tmp_path, valkey.url, kafka.settings())
        try:
            fresh.environment["CORDON_JOURNAL__DIRECTORY"] = processes.environment[
                "CORDON_JOURNAL__DIRECTORY"
            ]
            with pytest.raises(AssertionError, match="damaged"):
                fresh.start("api.publisher", ready="never said")
            wait_for(lambda: alerts(fresh, 1)[0]["code"] == "damaged_journal")
        finally:
            fresh.close()
    finally:
        processes.close()
