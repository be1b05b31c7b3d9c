"""Artefacts: what was published is what is loaded, or a typed error says what to do."""

import json
import shutil

import numpy as np
import pytest

from models.artefact import (
    ArtefactDamaged,
    ArtefactDisagrees,
    ArtefactIncompatible,
    ArtefactMissing,
    load,
    point,
    publish,
    resolve,
)
from models.manifest import publish_trained
from models.scorer import CpuScorer
from models.train import train
from tests.models.world import DAY, FEATURES, PLAN, history

FINGERPRINT = "abcdefabcdef"


@pytest.fixture(scope="module")
def trained():
    return train(history(), 60 * DAY, PLAN)


@pytest.fixture(scope="module")
def published(trained, tmp_path_factory):
    return publish_trained(
        tmp_path_factory.mktemp("models"),
        trained,
        PLAN,
        catalogue="small",
        vector_fingerprint=FINGERPRINT,
        state_fingerprint="012345012345",
        groups={"label": ("terminal_fraud_count_7d",), "device": ("device_new_30d",), "all": FEATURES},
    )


@pytest.fixture
def copy(published, tmp_path):
    return shutil.copytree(published, tmp_path / published.name)


def test_a_loaded_model_scores_as_the_trained_one(trained, published):
    model = load(published, features=FEATURES, fingerprint=FINGERPRINT)
    rows = history(seed=9, rows=300).matrix
    margins = model.scorer.score(rows)
    assert margins.tobytes() == CpuScorer(trained.ensemble).score(rows).tobytes()
    assert model.probability(margins).tobytes() == trained.calibrator.probability(margins).tobytes()
    assert model.policy == trained.policy
    assert model.scorecard == trained.scorecard
    assert model.version == published.name


def test_the_manifest_tells_the_model_s_story(published):
    manifest = load(published).manifest
    training = manifest["training"]
    assert manifest["features"] == list(FEATURES)
    assert training["label_delay_ms"] == PLAN.maturity_ms
    assert len(training["data_sha256"]) == 64
    assert training["window_ms"][0] < training["window_ms"][1] <= 53 * DAY
    auc = manifest["metrics"]["auc"]
    assert auc["interval"][0] <= auc["value"] <= auc["interval"][1]
    assert manifest["metrics"]["cost_minor"] < manifest["metrics"]["cost_approving_all_minor"]
    assert set(manifest["libraries"]) == {"python", "numpy", "xgboost"}
    # the model ranks without the device; it can never do without everything
    assert manifest["missing_allowed"]["device"] == ["device_new_30d"]
    assert "all" not in manifest["missing_allowed"]
    assert load(published).missing_allowed["device"] == ("device_new_30d",)


def test_publishing_again_changes_nothing(trained, published):
    before = {p.name: p.stat().st_mtime_ns for p in published.iterdir()}
    manifest = load(published).manifest
    parts = {
        n: json.loads((published / f"{n}.json").read_text()) for n in ("calibrator", "policy", "scorecard")
    }
    again = publish(
        published.parent,
        trained.ensemble,
        parts,
        {k: v for k, v in manifest.items() if k not in ("format", "members", "files", "features")},
    )
    assert again == published
    assert {p.name: p.stat().st_mtime_ns for p in published.iterdir()} == before
    assert not [p for p in published.parent.iterdir() if p.name.startswith(".draft")]


def test_another_catalogue_is_refused(published):
    with pytest.raises(ArtefactIncompatible, match="train again"):
        load(published, fingerprint="000000000000")
    with pytest.raises(ArtefactIncompatible, match="another order"):
        load(published, features=FEATURES[::-1])
    with pytest.raises(ArtefactIncompatible, match="device_new_30d"):
        load(published, features=FEATURES[:-1])


def test_no_model_says_train(tmp_path):
    with pytest.raises(ArtefactMissing, match="cordon train"):
        load(tmp_path / "nothing")
    with pytest.raises(ArtefactMissing, match="cordon train"):
        resolve(tmp_path, "champion")


@pytest.mark.parametrize("name", ["manifest.json", "member-0-full.ubj", "calibrator.json", "policy.json"])
def test_a_changed_byte_is_found(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ArtefactDamaged):
        load(copy)


def test_a_missing_file_is_found(copy):
    (copy / "member-1-recent.ubj").unlink()
    with pytest.raises(ArtefactDamaged, match=r"member-1-recent\.ubj is missing"):
        load(copy)


def test_a_machine_that_computes_something_else_does_not_serve(trained, tmp_path):
    golden = {"rows": [[1.0, None, 2.0, 3.0, 0.0]], "margins": [123.0]}
    parts = {
        "calibrator": trained.calibrator.to_json(),
        "policy": trained.policy.to_json(),
        "scorecard": trained.scorecard.to_json(),
    }
    manifest = {
        "catalogue": "small",
        "vector_fingerprint": FINGERPRINT,
        "golden": golden,
        "missing_allowed": {},
    }
    wrong = publish(tmp_path, trained.ensemble, parts, manifest)
    with pytest.raises(ArtefactDisagrees, match="golden margins differ"):
        load(wrong)


def test_an_alias_moves_atomically(published):
    root = published.parent
    point(root, "champion", published.name)
    assert load(resolve(root, "champion")).version == published.name
    with pytest.raises(ArtefactMissing):
        point(root, "champion", "small-000000000000")
    assert resolve(root, "champion") == published


def test_the_fallback_scorecard_ranks_and_takes_missing_columns(trained):
    world = history(seed=11)
    columns = {name: world.matrix[:, i] for i, name in enumerate(FEATURES)}
    margins = trained.scorecard.score(columns, len(world))
    probability = trained.scorecard.probability(margins)
    assert probability[world.fraud].mean() > 5 * probability[~world.fraud].mean()
    nothing = trained.scorecard.probability(trained.scorecard.score({}, 2))
    assert np.isfinite(nothing).all()
    assert nothing[0] < probability[world.fraud].mean()
    absent = {name: np.full(2, np.nan, dtype=np.float32) for name in FEATURES}
    assert (trained.scorecard.score(absent, 2) == trained.scorecard.score({}, 2)).all()
