"""Calibration: rising, inside (0, 1), right on average, kept by a round trip."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.calibration import Calibrator, CalibratorInvalid, fit_calibrator, score_1000

slices = st.lists(st.tuples(st.floats(-8, 8, width=32), st.booleans()), min_size=1, max_size=80)


@given(slices)
def test_probabilities_rise_with_the_margin_and_stay_inside(rows):
    margins, labels = zip(*rows, strict=True)
    calibrator = fit_calibrator(margins, labels)
    p = calibrator.probability(np.linspace(-10, 10, 50))
    assert (np.diff(p) >= 0).all()
    assert (p > 0).all()
    assert (p < 1).all()
    assert Calibrator.from_json(json.loads(json.dumps(calibrator.to_json()))) == calibrator


@given(slices, st.permutations(range(80)))
def test_the_order_of_rows_does_not_matter(rows, order):
    shuffled = [rows[i] for i in order if i < len(rows)]
    a = fit_calibrator(*zip(*rows, strict=True)).probability([-1.0, 0.0, 1.0])
    b = fit_calibrator(*zip(*shuffled, strict=True)).probability([-1.0, 0.0, 1.0])
    assert np.allclose(a, b)


def test_it_finds_the_true_probability():
    random = np.random.default_rng(1)
    margins = random.normal(-2, 2, 40_000)
    truth = 1 / (1 + np.exp(-0.5 * margins))  # the margins are overconfident by a factor of two
    calibrator = fit_calibrator(margins, random.random(40_000) < truth)
    assert np.abs(calibrator.probability(margins) - truth).mean() < 0.02


def test_a_slice_without_fraud_does_not_claim_that_there_is_none():
    calibrator = fit_calibrator([0.0, 1.0, 2.0], [False, False, False])
    assert 0 < calibrator.probability([5.0])[0] < 0.2


def test_knots_that_do_not_rise_are_refused():
    with pytest.raises(CalibratorInvalid):
        Calibrator((0.0, 0.0), (0.1, 0.2))
    with pytest.raises(CalibratorInvalid):
        Calibrator((0.0, 1.0), (0.2, 0.1))
    with pytest.raises(CalibratorInvalid):
        Calibrator((0.0,), (1.0,))


def test_the_score_is_the_probability_in_thousandths():
    assert [score_1000(p) for p in (0.0, 0.0004, 0.0005, 0.9, 0.99951)] == [0, 0, 1, 900, 1000]


@given(
    st.lists(st.integers(-12_000, 12_000), min_size=1, max_size=40, unique=True),
    st.lists(st.floats(-20, 20), min_size=1),
)
def test_one_margin_gets_the_very_probability_of_many(knots, margins):
    x = [knot / 997 for knot in sorted(knots)]
    calibrator = Calibrator(tuple(x), tuple(np.linspace(0.001, 0.999, len(x)).tolist()))
    every = [*margins, *x]
    assert [calibrator.probability_of(m) for m in every] == calibrator.probability(every).tolist()
