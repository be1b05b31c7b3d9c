"""What a vector would have been, against the evaluator: the same history, another amount or device."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.work import Inbound
from features.altered import (
    ENDS,
    Past,
    Undetermined,
    with_amount,
    with_fewer,
    with_field,
    with_known,
    without_failures,
)
from tests.api.world import CATALOGUE, NOW_MS, Bench, transaction

AMOUNTS = st.lists(st.integers(100, 90_000), min_size=1, max_size=6)


def last_vector(directory, name: str, amounts: list[int], last: dict) -> tuple[dict, dict]:
    """Vector and fields of the last of several payments of one card, minutes apart."""
    bench = Bench(directory, worker=name)
    for number, amount in enumerate(amounts):
        time = NOW_MS - (len(amounts) - number) * 240_000
        bench.decide(transaction(f"{name}-{number}", amount=amount, time=time))
    (answer,) = bench.decide(transaction(f"{name}-last", **last))
    record = answer.record
    values = {k: v for k, v in record["transaction"].items() if k != "original_amount"}
    return dict(zip(CATALOGUE.names, record["features"], strict=True)), values


def close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=2e-4, abs_tol=0.05)


@settings(max_examples=40, deadline=None)
@given(earlier=AMOUNTS, before=st.integers(101, 90_000), after=st.integers(100, 90_000))
def test_another_amount_gives_the_vector_that_the_evaluator_gives(tmp_path_factory, earlier, before, after):
    directory = tmp_path_factory.mktemp("altered")
    vector, values = last_vector(directory, "a", earlier, {"amount": before})
    expected, _ = last_vector(directory, "b", earlier, {"amount": after})
    past = Past(CATALOGUE, vector, values)
    try:
        low, high = (with_amount(past, after, end) for end in ENDS)
    except Undetermined:
        # Nearly no spread is left: single precision does not tell how much.
        spread = expected["card_amount_std_30d"]
        assert spread is None or spread < 0.03 * (vector["card_amount_std_30d"] or 0)
        return
    for name in CATALOGUE.names:
        # A hidden maximum lies between the two ends; everything else is the same in both.
        if close(low[name], high[name]):
            assert close(low[name], expected[name]), (name, low[name], expected[name])
        else:
            assert "max" in name
            ends = sorted(v for v in (low[name], high[name]) if v is not None)
            found = expected[name]
            assert found is not None
            assert ends[0] * 0.999 <= found <= ends[1] * 1.001


def test_a_known_device_is_the_one_that_the_card_has_used(tmp_path):
    vector, values = last_vector(tmp_path, "a", [500, 600], {"device": "de_new"})
    expected, _ = last_vector(tmp_path, "b", [500, 600], {"device": "de_a"})
    assert vector["card_device_new_30d"] == 1
    found = with_known(Past(CATALOGUE, vector, values), "device")
    for name in CATALOGUE.names:
        # The other device has a history of its own, which is not known here.
        if not name.startswith("device_"):
            assert close(found[name], expected[name]), name


@pytest.mark.parametrize("fewer", [1, 2, 3])
def test_fewer_payments_of_the_same_amounts(tmp_path, fewer):
    vector, values = last_vector(tmp_path, "a", [700] * 4, {"amount": 5_000})
    expected, _ = last_vector(tmp_path, "b", [700] * (4 - fewer), {"amount": 5_000})
    found = with_fewer(Past(CATALOGUE, vector, values), "card", fewer)
    kinds = ("card_count", "card_amount_sum", "card_ecom_count", "card_online_share")
    checked = [name for name in CATALOGUE.names if name.startswith(kinds) and "10m" not in name]
    assert len(checked) > 8
    for name in checked:
        assert close(found[name], expected[name]), (name, found[name], expected[name])


def test_without_declines_of_the_issuer(tmp_path):
    bench = Bench(tmp_path)
    bench.decide(transaction("first", time=NOW_MS - 60_000))
    event = {"event_id": "e1", "transaction_id": "first", "time": NOW_MS - 50_000, "kind": "issuer_declined"}
    bench.engine.decide_batch([Inbound("event", event, "http")], now_ms=bench.now_ms)
    record = bench.decide(transaction("second"))[0].record
    vector = dict(zip(CATALOGUE.names, record["features"], strict=True))
    assert vector["card_issuer_declined_count_1h"] == 1
    found = without_failures(Past(CATALOGUE, vector, record["transaction"]), "card", "issuer_declined")
    assert found["card_issuer_declined_count_1h"] == 0
    assert found["card_issuer_declined_gap"] is None
    assert {n for n in CATALOGUE.names if found[n] != vector[n]} == {
        n for n in CATALOGUE.names if "issuer_declined" in n and vector[n] is not None
    }


def test_another_field_moves_what_is_made_of_it(tmp_path):
    vector, values = last_vector(tmp_path, "a", [500], {"ip_country": "US", "billing_country": "GB"})
    found, changed = with_field(Past(CATALOGUE, vector, values), "ip_country", "GB")
    assert vector["ip_country_billing_country_mismatch"] == 1
    assert found["ip_country_billing_country_mismatch"] == 0
    assert (vector["ip_country_zone"], found["ip_country_zone"]) == (None, 2.0)
    assert changed["ip_country"] == "GB"
    assert np.float32(found["amount"] or 0) == vector["amount"]
