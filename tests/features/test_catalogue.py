"""The two shipped catalogues, and the promise that a feature is added in one place."""

import dataclasses

import pytest

from features import Catalogue, Gap, SchemaError, Window, handbook, load, payments
from features.feature import Distinct, Novelty, Own, Ratio, Speed, ZScore
from features.measure import FRAUD
from features.tier import DAY, HOUR


@pytest.mark.parametrize(("catalogue", "least"), [(payments.CATALOGUE, 60), (handbook.CATALOGUE, 30)])
def test_size_and_unique_names(catalogue: Catalogue, least: int) -> None:
    assert len(set(catalogue.names)) == len(catalogue.names) >= least


def test_payments_has_every_kind_of_feature() -> None:
    kinds = {type(f) for f in payments.CATALOGUE.features}
    assert kinds == {Window, Ratio, ZScore, Gap, Speed, Novelty, Distinct, Own}
    windows = [f for f in payments.CATALOGUE.features if isinstance(f, Window)]
    assert {f.aggregate for f in windows} == {"count", "sum", "mean", "std", "max"}
    assert any(f.where for f in windows)
    assert {FRAUD, "issuer_declined"} <= {f.source for f in windows}
    assert any(f.uses_labels for f in payments.CATALOGUE.features)


def test_names_are_derived() -> None:
    assert Window("card", "sum", HOUR, "amount").name == "card_amount_sum_1h"
    assert Window("card", "count", DAY, source="issuer_declined").name == "card_issuer_declined_count_1d"
    assert Window("terminal", "count", DAY, delay_ms=7 * DAY).name == "terminal_count_1d_before_7d"


def test_a_feature_without_new_state_changes_the_vector_only() -> None:
    base = handbook.CATALOGUE
    more = dataclasses.replace(base, features=(*base.features, Window("terminal", "count", 6 * DAY)))
    assert more.state_fingerprint == base.state_fingerprint
    assert more.vector_fingerprint != base.vector_fingerprint


def test_a_feature_with_new_state_changes_both() -> None:
    base = handbook.CATALOGUE
    more = dataclasses.replace(base, features=(*base.features, Window("terminal", "std", DAY, "amount")))
    assert more.state_fingerprint != base.state_fingerprint


@pytest.mark.parametrize(
    ("feature", "says"),
    [
        (Window("till", "count", DAY), "no entity 'till'"),
        (Window("customer", "sum", DAY, "colour"), "no field 'colour'"),
        (Window("customer", "sum", DAY, "terminal"), "only amounts and integers"),
        (Window("customer", "count", DAY, source="eaten"), "no event 'eaten'"),
        (Window("customer", "count", 1500), "whole minutes"),
        (Speed("customer"), "latitude"),
    ],
)
def test_a_wrong_feature_says_what_is_wrong(feature: Window, says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        Catalogue("bad", handbook.SCHEMA, (feature,))


def test_loading_names_the_way_out() -> None:
    assert load("handbook") is handbook.CATALOGUE
    with pytest.raises(SchemaError, match=r"payments, handbook or a FILE\.py"):
        load("nothing")
    with pytest.raises(SchemaError, match="does not exist"):
        load("nowhere/catalogue.py")
