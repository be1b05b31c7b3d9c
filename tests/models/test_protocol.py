"""The folds of models.md, section 2, against nested loops."""

from datetime import date

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.protocol import (
    HANDBOOK_ORIGIN,
    HANDBOOK_TEST,
    HANDBOOK_VALIDATION,
    Fold,
    FoldResult,
    ProtocolResult,
    folds,
    measure_fold,
)

histories = st.lists(
    st.tuples(st.integers(0, 25), st.integers(0, 4), st.booleans()), min_size=1, max_size=80
).map(sorted)


def test_weeks_of_a_fold():
    #  day 10 .. 16   17 .. 23   24 .. 30
    #      train      delay      test
    fold = Fold(10)
    assert (fold.train_first, fold.train_last, fold.test_first, fold.test_last) == (10, 16, 24, 30)
    # a longer history ends on the same day
    assert (Fold(100, 84).train_first, Fold(100, 84).train_last) == (23, 106)


@given(histories)
def test_test_rows_leave_out_customers_whose_fraud_is_known(history):
    fold = Fold(2)
    day, customer, fraud = (np.array(c) for c in zip(*history, strict=True))
    expected = [
        row
        for row, (today, who, _) in enumerate(history)
        if fold.test_first <= today <= fold.test_last
        and not any(f and w == who and fold.start <= d <= today - 8 for d, w, f in history)
    ]
    assert fold.test_rows(day, customer, fraud).tolist() == expected


@given(histories, st.integers(1, 30))
def test_training_never_touches_the_delay_or_the_test_week(history, days):
    fold = Fold(5, days)
    day = np.array([d for d, _, _ in history])
    trained = day[fold.train_rows(day)]
    assert all(fold.test_first - 7 > d >= fold.train_last - days + 1 for d in trained)


def test_validation_comes_before_every_test_week():
    validation = folds(HANDBOOK_VALIDATION, HANDBOOK_ORIGIN)
    test = folds(HANDBOOK_TEST, HANDBOOK_ORIGIN)
    assert [f.start for f in test] == [136, 129, 122, 115]
    assert [f.start for f in validation] == [101, 94, 87, 80]
    assert max(f.test_last for f in validation) < min(f.test_first for f in test)


def test_a_fold_is_scored_on_its_test_rows_only():
    fold = Fold(0)
    day = np.repeat(np.arange(30), 4)
    customer = np.tile(np.arange(4), 30)
    fraud = (customer == 3) & (day == 20)
    seen = []

    def score(rows):
        seen.extend(rows.tolist())
        return (customer[rows] == 3).astype(float)

    result = measure_fold(fold, day, customer, fraud, score)
    assert set(day[seen]) == set(range(14, 21))
    assert (result.transactions, result.frauds) == (28, 1)
    # the customer with the fraud ties with itself on the six other days: 21 of 27 pairs won, 6 half won
    assert round(result.auc - (21 + 6 / 2) / 27, 9) == 0
    assert round(result.cp100 - 0.01 / 7, 9) == 0


def test_mean_and_deviation_over_folds():
    result = ProtocolResult(
        tuple(FoldResult(start, 10, 1, auc, 0.5, 0.3) for start, auc in ((0, 0.8), (7, 0.9)))
    )
    assert round(result.mean("auc"), 9) == 0.85
    assert round(result.sd("auc"), 9) == 0.05
    assert date(2018, 8, 15) in HANDBOOK_TEST
