"""What the door accepts and what it refuses, with the field and the reason."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.event import (
    InvalidEvent,
    check_time,
    holds_card_number,
    identify,
    mask_card_numbers,
    parse_label,
    parse_lifecycle,
    parse_transaction,
)
from features.payments import CATALOGUE, SCHEMA
from features.pseudonym import Pseudonyms
from features.rates import Rates, rates

RATES = rates("EUR")
GOOD: dict[str, Any] = {
    "transaction_id": "tx_1",
    "time": 1_700_000_000_000,
    "amount": 1999,
    "currency": "EUR",
    "card": "cd_a",
    "merchant": "me_b",
    "channel": "ecom",
    "category": "electronics",
}


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"transaction_id": None}, "transaction_id", "missing"),
        ({"transaction_id": ""}, "transaction_id", "missing"),
        ({"transaction_id": 7}, "transaction_id", "type"),
        ({"transaction_id": "x" * 129}, "transaction_id", "too_long"),
        ({"time": "yesterday"}, "time", "type"),
        ({"time": "2024-01-01T00:00:00"}, "time", "type"),
        ({"time": True}, "time", "type"),
        ({"time": -5}, "time", "range"),
        ({"amount": -1}, "amount", "range"),
        ({"amount": 19.99}, "amount", "type"),
        ({"amount": "1999"}, "amount", "type"),
        ({"amount": 10**12}, "amount", "range"),
        ({"amount": None}, "amount", "missing"),
        ({"currency": "XXX"}, "currency", "currency"),
        ({"currency": None}, "currency", "missing"),
        ({"card": "4111 1111 1111 1111"}, "card", "card_number"),
        ({"email": "4111111111111111@example.com"}, "email", "card_number"),
        ({"merchant": ""}, "merchant", "missing"),
        ({"merchant": None}, "merchant", "missing"),
        ({"channel": "fax"}, "channel", "unknown_value"),
        ({"latitude": 91.0}, "latitude", "range"),
        ({"latitude": float("nan")}, "latitude", "range"),
        ({"ip": "10.0.0.1\n"}, "ip", "malformed"),
        ({"score": 1.0}, "score", "unknown_field"),
    ],
)
def test_an_invalid_transaction_names_its_field(change: dict[str, Any], field: str, code: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        parse_transaction(SCHEMA, RATES, {**GOOD, **change})
    assert (caught.value.field, caught.value.code) == (field, code)


@pytest.mark.parametrize("payload", [None, [], "text", 3])
def test_only_objects_are_events(payload: object) -> None:
    with pytest.raises(InvalidEvent, match="JSON object"):
        parse_transaction(SCHEMA, RATES, payload)


def test_amounts_are_converted_to_the_base_currency() -> None:
    yen = parse_transaction(SCHEMA, RATES, {**GOOD, "amount": 16_410, "currency": "JPY"})
    assert (yen.values["amount"], yen.original_amount) == (10_000, 16_410)
    assert parse_transaction(SCHEMA, RATES, GOOD).values["amount"] == 1999


@given(
    st.integers(-(10**12), 10**12),
    st.fractions(min_value=0, max_value=10**6, max_denominator=10**6)
    | st.sampled_from([Fraction(1, 2), Fraction(3, 2)]),
)
def test_an_amount_is_rounded_as_the_exact_product_is(amount: int, factor: Fraction) -> None:
    assert Rates("EUR", "1", {"XXX": factor}).convert(amount, "XXX") == round(amount * factor)


def test_an_iso_time_is_the_same_instant() -> None:
    assert (
        parse_transaction(SCHEMA, RATES, {**GOOD, "time": "2023-11-14T23:13:20+01:00"}).time_ms
        == GOOD["time"]
    )


@pytest.mark.parametrize(
    "number", ["4111111111111111", "5500 0000 0000 0004", "340000000000009", "2221-0000-0000-0009"]
)
def test_card_numbers_are_recognised_and_masked(number: str) -> None:
    assert holds_card_number(f"ref {number}!")
    assert not any(c.isdigit() for c in mask_card_numbers(number))


@pytest.mark.parametrize(
    "text", ["4111111111111112", "1234567890123456", "2024-11-15T10:11:12.123", "tx-000000000000001"]
)
def test_other_digits_are_left_alone(text: str) -> None:
    assert not holds_card_number(text)


def test_an_event_too_late_or_too_early_is_refused() -> None:
    now = 1_700_000_000_000
    check_time(SCHEMA, now, newest_ms=now + SCHEMA.lateness_ms, now_ms=now)
    with pytest.raises(InvalidEvent, match="behind the newest"):
        check_time(SCHEMA, now, newest_ms=now + SCHEMA.lateness_ms + 1, now_ms=now)
    with pytest.raises(InvalidEvent, match="ahead of the clock"):
        check_time(SCHEMA, now + SCHEMA.future_skew_ms + 1, newest_ms=0, now_ms=now)


def test_an_absent_id_gives_no_entity_and_a_pair_needs_both() -> None:
    names = Pseudonyms("t", b"k" * 32)
    both = identify(CATALOGUE, names, parse_transaction(SCHEMA, RATES, GOOD).values)
    assert set(both.entities) == {"card", "merchant", "card_merchant"}
    without = identify(CATALOGUE, names, parse_transaction(SCHEMA, RATES, {**GOOD, "card": None}).values)
    assert set(without.entities) == {"merchant"}


@given(st.text(min_size=1, max_size=20))
def test_pseudonyms_differ_by_tenant_secret_and_entity(text: str) -> None:
    one, two, three = Pseudonyms("t", b"k" * 32), Pseudonyms("u", b"k" * 32), Pseudonyms("t", b"q" * 32)
    found = {
        one.entity("card", (text,)),
        two.entity("card", (text,)),
        three.entity("card", (text,)),
        one.entity("ip", (text,)),
    }
    assert len(found) == 4
    assert text not in found
    assert 0 < one.mark("device", text) < 2**63


def test_labels_and_lifecycle_events() -> None:
    label = {"label_id": "l1", "transaction_id": "tx_1", "time": 1, "fraud": True}
    assert parse_label({"type": "label", **label}).fraud
    with pytest.raises(InvalidEvent, match="fraud"):
        parse_label({**label, "fraud": "yes"})
    with pytest.raises(InvalidEvent, match="note"):
        parse_label({**label, "note": "x"})
    event = {"event_id": "e1", "transaction_id": "tx_1", "time": 1, "kind": "refunded", "amount": 5}
    assert parse_lifecycle(SCHEMA, event).amount == 5
    with pytest.raises(InvalidEvent, match="kind"):
        parse_lifecycle(SCHEMA, {**event, "kind": "eaten"})
