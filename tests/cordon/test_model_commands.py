"""`cordon train` and `cordon evaluate` as a person runs them: exit status, last line, words for mistakes."""

import json
import subprocess
import sys

import pytest

from models.artefact import load, resolve
from tests.models.parcel_history import PARCELS, write_parcels


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_parcels(tmp_path_factory.mktemp("parcels") / "history.parquet")


def cordon(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "cordon.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_evaluate_any_schema_by_dates(file):
    dates = ("--train-until", "2024-02-25", "--test-from", "1709424000000", "--label-delay", "7d")  # 03-03
    run = cordon("evaluate", "--catalogue", PARCELS, "--history", file, *dates, "--json")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert {"train", "test", "auc", "ap", "recall_at_1pct_fpr", "lift_at_20pct", "commit", "seconds"} <= set(
        found
    )
    assert found["auc"] > 0.7
    assert "members on" in run.stderr


def test_train_publishes_a_champion(file, tmp_path):
    run = cordon("train", "--catalogue", PARCELS, "--history", file, "--out", tmp_path, "--json")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    model = load(resolve(tmp_path, "champion"))
    assert model.version == found["model"]
    assert sum(found["weights"].values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate",), "say `handbook`"),
        (("evaluate", "credit"), "no protocol 'credit'"),
        (("evaluate", "handbook", "--history", "/nowhere.parquet"), "is not there"),
        (("train", "--history", "/nowhere.parquet"), "there is no such file"),
        (("train", "--history", "x", "--catalogue", "absent"), "use payments, handbook or a FILE.py"),
    ],
)
def test_mistakes_get_one_line_that_says_what_to_do(arguments, words):
    run = cordon(*arguments)
    assert run.returncode == 2
    assert words in run.stderr
    assert "Traceback" not in run.stderr
