"""Training: deterministic, only on what was known, no slice twice, clear words when data is thin."""

import numpy as np
import pytest
import xgboost as xgb

from models.examples import InvalidExamples, TooFewFrauds
from models.manifest import publish_trained
from models.metrics import roc_auc
from models.scorer import CpuScorer
from models.train import train
from tests.models.world import DAY, FEATURES, PLAN, history

CUTOFF = 60 * DAY


def publish(root, trained):
    return publish_trained(
        root,
        trained,
        PLAN,
        catalogue="small",
        vector_fingerprint="abcdefabcdef",
        state_fingerprint="012345012345",
        groups={"label": ("terminal_fraud_count_7d",), "device": ("device_new_30d",)},
    )


@pytest.fixture(scope="module")
def trained():
    return train(history(), CUTOFF, PLAN)


def test_two_runs_give_the_same_bytes(trained, tmp_path):
    again = train(history(), CUTOFF, PLAN)
    first, second = publish(tmp_path / "a", trained), publish(tmp_path / "b", again)
    assert first.name == second.name
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {
        p.name: p.read_bytes() for p in second.iterdir()
    }


def test_it_ranks_a_later_history(trained):
    later = history(seed=6)
    assert roc_auc(later.fraud, CpuScorer(trained.ensemble).score(later.matrix)) > 0.9
    assert [m.name for m in trained.ensemble.members] == ["full", "recent", "behaviour"]
    assert sum(m.weight for m in trained.ensemble.members) == pytest.approx(1.0)


def test_the_behaviour_member_never_looks_at_labels(trained):
    behaviour = trained.ensemble.members[2]
    booster = xgb.Booster(model_file=bytearray(behaviour.model))
    used = {int(name[1:]) for name in booster.get_score()}
    assert used
    assert FEATURES.index("terminal_fraud_count_7d") not in used


def test_only_what_was_known_at_the_cut_off_is_learned():
    #  0 ............... cut-off - maturity ........ cut-off ........ end
    #  learned, with labels that had arrived         not learned
    examples = history()
    cutoff = 40 * DAY
    trained = train(examples, cutoff, PLAN)
    assert trained.window_ms[1] <= cutoff - PLAN.maturity_ms
    changed = examples.matrix.copy()
    changed[examples.time_ms > cutoff - PLAN.maturity_ms] = 7.0
    same = train(
        type(examples)(
            changed,
            examples.features,
            examples.time_ms,
            examples.fraud,
            examples.label_time_ms,
            examples.amount_minor,
            examples.label_derived,
        ),
        cutoff,
        PLAN,
    )
    assert [m.model for m in same.ensemble.members] == [m.model for m in trained.ensemble.members]


def test_a_label_that_came_late_is_no_label_yet():
    examples = history(label_delay_days=20)
    known = examples.known_at(30 * DAY, 7 * DAY)
    assert known.time_ms[-1] <= 23 * DAY
    assert not known.fraud[known.time_ms > 10 * DAY].any()
    assert (known.fraud == (examples.fraud[: len(known)] & (known.time_ms <= 10 * DAY))).all()


def test_the_slice_that_is_measured_comes_last(trained):
    window = trained.window
    measured = trained.measured.examples
    assert measured.time_ms[-1] == window.time_ms[-1]
    assert measured.time_ms[0] >= window.time_ms[0] + 0.84 * (window.time_ms[-1] - window.time_ms[0])
    assert trained.notes == ()


def test_few_frauds_are_enough_and_said():
    thin = train(history(rows=600, rate=0.03, days=30), 37 * DAY, PLAN)
    assert any("few frauds" in note for note in thin.notes)
    assert len(thin.ensemble.members) == 3


def test_too_few_frauds_say_what_to_do():
    with pytest.raises(TooFewFrauds, match="train on a longer history"):
        train(history(rows=200, rate=0.01), CUTOFF, PLAN)
    with pytest.raises(TooFewFrauds, match="0 frauds among 0 transactions"):
        train(history(), 0, PLAN)


def test_impossible_arrays_are_refused_by_name():
    examples = history(rows=50)
    matrix = examples.matrix.copy()
    matrix[3, 1] = np.inf
    columns = (examples.time_ms, examples.fraud, examples.label_time_ms, examples.amount_minor)
    with pytest.raises(InvalidExamples, match="card_count_1h"):
        type(examples)(matrix, FEATURES, *columns)
    with pytest.raises(InvalidExamples, match="time order"):
        type(examples)(examples.matrix, FEATURES, columns[0][::-1], *columns[1:])
    with pytest.raises(InvalidExamples, match="float32"):
        type(examples)(examples.matrix.astype(np.float64), FEATURES, *columns)
