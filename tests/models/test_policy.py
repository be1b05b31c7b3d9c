"""Bands by money: the vectorised form equals the plain one, and the chosen thresholds are worth it."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.policy import (
    OUTCOMES,
    Costs,
    Policy,
    band,
    bands,
    choose_policy,
    cost_minor,
    expected_loss_minor,
)

POLICY = Policy(100.0, 500.0, 0.9, exposure_minor=1000, costs=Costs())


def test_bands_by_expected_loss():
    # amount 100.00, exposure at least 10.00
    assert band(0.001, 10_000, POLICY) == "approve"  # expected loss 0.10
    assert band(0.01, 10_000, POLICY) == "challenge"  # 1.00
    assert band(0.05, 10_000, POLICY) == "review"  # 5.00
    assert band(0.9, 10_000, POLICY) == "decline"
    assert band(0.1, 1, POLICY) == "challenge"  # a cent, but the card is at stake


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 10**7)), min_size=1))
def test_many_equal_one_by_one(rows):
    probability, amount = zip(*rows, strict=True)
    one_by_one = [band(p, a, POLICY) for p, a in rows]
    assert [OUTCOMES[i] for i in bands(probability, amount, POLICY)] == one_by_one


@pytest.mark.parametrize("policy", [POLICY, Policy(0.5, math.inf, math.inf, 0, Costs(review_capacity=0.0))])
def test_a_policy_survives_json(policy):
    assert Policy.from_json(json.loads(json.dumps(policy.to_json(), allow_nan=False))) == policy


def world(rows=5000):
    random = np.random.default_rng(4)
    fraud = random.random(rows) < 0.02
    probability = np.clip(np.where(fraud, random.beta(5, 2, rows), random.beta(1, 60, rows)), 1e-4, 0.999)
    return probability, fraud, random.lognormal(8.5, 1.0, rows).astype(np.int64)


def test_chosen_thresholds_cost_less_than_doing_nothing_or_declining_all():
    probability, fraud, amount = world()
    costs = Costs()
    policy = choose_policy(probability, fraud, amount, costs)
    chosen = cost_minor(bands(probability, amount, policy), fraud, amount, costs)
    for everybody in range(len(OUTCOMES)):
        same = np.full(len(amount), everybody, dtype=np.int8)
        assert chosen < cost_minor(same, fraud, amount, costs)
    assert policy == choose_policy(probability, fraud, amount, costs)


@pytest.mark.parametrize("capacity", [0.0, 0.002, 0.02])
def test_the_review_desk_is_never_overrun(capacity):
    probability, fraud, amount = world()
    policy = choose_policy(probability, fraud, amount, Costs(review_capacity=capacity, review_minor=1))
    assert (bands(probability, amount, policy) == 2).mean() <= capacity


def test_without_fraud_nobody_is_bothered():
    probability, fraud, amount = world()
    policy = choose_policy(probability, np.zeros_like(fraud), amount, Costs())
    assert not bands(probability, amount, policy).any()


def test_dearer_friction_means_fewer_challenges():
    probability, fraud, amount = world()
    shares = [
        (
            bands(probability, amount, choose_policy(probability, fraud, amount, Costs(friction_minor=f)))
            == 1
        ).mean()
        for f in (5, 500)
    ]
    assert shares[0] > shares[1]


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="shares"):
        Costs(review_capacity=2.0)
    with pytest.raises(ValueError, match="between"):
        Policy(5.0, 1.0, 0.9, 0, Costs())


def test_expected_loss_is_in_whole_minor_units():
    assert expected_loss_minor(0.25, 1001) == 250
    assert expected_loss_minor(0.0, 10**9) == 0
