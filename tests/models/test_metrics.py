"""Each metric equals its obvious definition, on generated rankings with many ties."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.metrics import (
    MetricUndefined,
    average_precision,
    bootstrap_interval,
    card_precision,
    lift,
    recall_at_fpr,
    roc_auc,
)

rankings = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=60).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


def naive_auc(rows):
    frauds = [s for y, s in rows if y]
    genuine = [s for y, s in rows if not y]
    won = sum((f > g) + 0.5 * (f == g) for f in frauds for g in genuine)
    return won / (len(frauds) * len(genuine))


def naive_average_precision(rows):
    total = sum(y for y, _ in rows)
    value, recall = 0.0, 0.0
    for threshold in sorted({s for _, s in rows}, reverse=True):
        caught = [y for y, s in rows if s >= threshold]
        value += (sum(caught) / total - recall) * sum(caught) / len(caught)
        recall = sum(caught) / total
    return value


def naive_recall_at_fpr(rows, fpr_max):
    best = 0.0
    for threshold in {s for _, s in rows}:
        false = sum(not y and s >= threshold for y, s in rows) / sum(not y for y, _ in rows)
        if false <= fpr_max:
            best = max(best, sum(y and s >= threshold for y, s in rows) / sum(y for y, _ in rows))
    return best


def naive_card_precision(rows, k):
    """rows: (day, card, label, score)."""
    detected, daily = set(), []
    for day in sorted({d for d, *_ in rows}):
        best: dict[int, float] = {}
        fraud: dict[int, bool] = defaultdict(bool)
        for d, card, label, score in rows:
            if d == day and card not in detected:
                best[card] = max(best.get(card, -math.inf), score)
                fraud[card] |= label
        top = sorted(best, key=lambda card: (-best[card], card))[:k]
        daily.append(sum(fraud[c] for c in top) / k)
        detected |= {c for c in top if fraud[c]}
    return sum(daily) / len(daily)


def columns(rows):
    return [np.array(c) for c in zip(*rows, strict=True)]


@given(rankings)
def test_auc_is_the_share_of_pairs_in_order(rows):
    assert roc_auc(*columns(rows)) == pytest.approx(naive_auc(rows))


@given(rankings)
def test_average_precision_sums_precision_over_gained_recall(rows):
    assert average_precision(*columns(rows)) == pytest.approx(naive_average_precision(rows))


@given(rankings, st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]))
def test_recall_at_a_false_positive_rate_is_the_best_threshold_within_it(rows, fpr_max):
    labels, scores = columns(rows)
    assert recall_at_fpr(labels, scores, fpr_max) == pytest.approx(naive_recall_at_fpr(rows, fpr_max))


@given(
    st.lists(
        st.tuples(st.integers(3, 6), st.integers(0, 7), st.booleans(), st.integers(0, 5)),
        min_size=1,
        max_size=50,
    ),
    st.integers(1, 5),
)
def test_card_precision_equals_the_obvious_loop(rows, k):
    days, cards, labels, scores = columns(rows)
    assert card_precision(labels, scores, cards, days, k) == pytest.approx(naive_card_precision(rows, k))


@given(rankings, st.permutations(range(60)))
def test_the_order_of_rows_does_not_matter(rows, order):
    shuffled = [rows[i] for i in order if i < len(rows)]
    for metric in (roc_auc, average_precision, recall_at_fpr, lift):
        labels, scores = columns(rows)
        assert metric(labels, scores) == pytest.approx(metric(*columns(shuffled)[:2]))


def test_lift_is_the_fraud_rate_at_the_top_over_the_fraud_rate_of_all():
    labels = [True, True, False, False, False, False, False, False, True, False]
    scores = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    # the top two of ten are both fraud, three of ten are
    assert lift(labels, scores, 0.2) == pytest.approx(1.0 / 0.3)
    # one score for all: no better than chance
    assert lift(labels, [1.0] * 10, 0.2) == pytest.approx(1.0)


def test_a_detected_card_is_not_investigated_again():
    # day 1: card 5 is found and leaves; day 2: only card 7 is left to find
    days, cards = [1, 1, 2, 2], [5, 6, 5, 7]
    labels, scores = [True, False, True, True], [9.0, 1.0, 9.0, 8.0]
    assert card_precision(labels, scores, cards, days, k=1) == 1.0
    assert card_precision(labels, scores, cards, days, k=100) == pytest.approx(0.01)


def test_a_slice_of_one_kind_is_refused_with_its_reason():
    with pytest.raises(MetricUndefined, match="3 transactions, 0 fraud"):
        roc_auc([0, 0, 0], [1, 2, 3])
    with pytest.raises(MetricUndefined):
        card_precision([], [], [], [])
    with pytest.raises(ValueError, match="finite"):
        roc_auc([0, 1], [math.nan, 1])


def test_the_interval_holds_the_value_and_is_seeded():
    random = np.random.default_rng(3)
    labels = random.random(500) < 0.2
    scores = labels + random.normal(size=500)
    low, high = bootstrap_interval(roc_auc, labels, scores, seed=1)
    assert low < roc_auc(labels, scores) < high
    assert (low, high) == bootstrap_interval(roc_auc, labels, scores, seed=1)
