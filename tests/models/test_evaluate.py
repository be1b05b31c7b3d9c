"""Evaluation of a history with a schema that the project has never heard of, by dates, point in time."""

import numpy as np
import pytest

from features import load
from features.history import load_history
from features.tier import DAY
from models.artefact import load as load_model
from models.evaluate import evaluate, examples_of
from models.examples import InvalidExamples, TooFewFrauds
from models.metrics import roc_auc
from models.pipeline import train_history
from tests.models.parcel_history import PARCELS, ROWS, START_MS, write_parcels
from tests.models.world import PLAN


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_parcels(tmp_path_factory.mktemp("parcels") / "history.parquet")


@pytest.fixture(scope="module")
def catalogue():
    return load(PARCELS)


@pytest.fixture(scope="module")
def history(file, catalogue):
    return load_history(file, catalogue.schema, label_delay_ms=7 * DAY)


def test_any_schema_is_trained_and_tested_by_dates(catalogue, history):
    #  day 0 ........... 55 ..... 62 ........ 75
    #      train         delay    test
    until, since = START_MS + 55 * DAY, START_MS + 62 * DAY
    found = evaluate(
        catalogue, history, train_until_ms=until, test_from_ms=since, label_delay_ms=7 * DAY, plan=PLAN
    )
    assert found.train == int((history.time_ms < until).sum())
    assert found.test == int((history.time_ms >= since).sum())
    assert found.young == 0
    assert found.test_frauds == int(history.label[history.time_ms >= since].sum())
    assert found.auc > 0.75
    assert found.ap > 4 * found.test_frauds / found.test
    assert found.lift_at_20pct > 2
    assert set(found.as_json()) >= {"train", "test", "auc", "ap", "recall_at_1pct_fpr", "lift_at_20pct"}


def test_transactions_without_a_label_yet_are_not_learned(catalogue, history):
    until = since = START_MS + 62 * DAY
    found = evaluate(
        catalogue, history, train_until_ms=until, test_from_ms=since, label_delay_ms=7 * DAY, plan=PLAN
    )
    assert found.train == int((history.time_ms <= since - 7 * DAY).sum())
    assert found.train + found.young + found.test == ROWS


def test_examples_are_in_time_order_with_their_labels(catalogue, history):
    examples, rows = examples_of(catalogue, history)
    assert (np.diff(examples.time_ms) >= 0).all()
    assert (examples.time_ms == history.time_ms[rows]).all()
    assert (examples.fraud == history.label[rows]).all()
    assert (examples.matrix[:, 0] == examples.amount_minor).all()
    assert examples.label_derived == {"depot_fraud_count_14d", "depot_fraud_share_14d"}
    assert (examples.label_time_ms[examples.fraud] == examples.time_ms[examples.fraud] + 7 * DAY).all()


def test_a_history_becomes_a_published_model(catalogue, history, tmp_path):
    directory, trained = train_history(catalogue, history, tmp_path, cutoff_ms=START_MS + 62 * DAY, plan=PLAN)
    model = load_model(directory, features=catalogue.names, fingerprint=catalogue.vector_fingerprint)
    assert model.manifest["catalogue"] == "parcels"
    later = trained.measured.examples
    assert roc_auc(later.fraud, model.scorer.score(np.ascontiguousarray(later.matrix))) > 0.75


def test_impossible_dates_and_thin_histories_say_what_to_do(catalogue, history):
    with pytest.raises(InvalidExamples, match="move one of the dates"):
        evaluate(
            catalogue,
            history,
            train_until_ms=START_MS + 50 * DAY,
            test_from_ms=START_MS + 40 * DAY,
            label_delay_ms=7 * DAY,
        )
    with pytest.raises(TooFewFrauds, match="longer history"):
        evaluate(
            catalogue,
            history,
            train_until_ms=START_MS + DAY // 2,
            test_from_ms=START_MS + 8 * DAY,
            label_delay_ms=7 * DAY,
        )
