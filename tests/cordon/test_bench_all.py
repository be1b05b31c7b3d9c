"""All measurements in a row: what they are asked, and what is said of those that fail."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import pytest

from bench.all import ALL, QuickResults, call, chosen, measurement, run, table
from cordon.commands.bench import BENCHES, measurements
from tests.parts import ROOT


def options(**other: Any) -> Namespace:
    return Namespace(**{"quick": True, "write": False, "only": [], **other})


def test_every_measurement_is_among_them():
    assert {one.words[0] for one in ALL} == measurements(BENCHES).keys() - {"all"}


def test_the_guide_names_all_of_them():
    page = (ROOT / "docs" / "measuring.md").read_text()
    for name in measurements(BENCHES):
        assert f"`cordon bench {name}" in page


def test_titles_are_different():
    titles = [one.title for one in ALL]
    assert len(set(titles)) == len(titles)


def test_quick_figures_are_not_kept():
    with pytest.raises(QuickResults, match="drop --write"):
        chosen(ALL, options(write=True))


def test_names_choose():
    assert [one.title for one in chosen(ALL, options(only=["score", "journal"]))] == ["score", "journal"]


def test_one_that_fails_does_not_stop_the_next():
    asked: list[list[str]] = []

    def measure(words: Sequence[str]) -> dict[str, Any]:
        asked.append(list(words))
        return {"error": "port 1 is taken"} if words[0] == "a" else {"holds": words[0] == "c", "tps": 1_234.5}

    wanted = [measurement(words, "--seconds 1", "tps") for words in ("a --rate 5", "b", "c")]
    found = run(wanted, options(), lambda line: None, measure)
    assert asked == [["a", "--rate", "5", "--seconds", "1", "--json"]] + [
        [name, "--seconds", "1", "--json"] for name in ("b", "c")
    ]
    assert list(found) == ["a --rate 5", "b", "c"]
    lines = table(found).splitlines()
    assert "not measured: port 1 is taken" in lines[0]
    assert "MISSED" in lines[1]
    assert "holds" in lines[2]


def test_whole_runs_are_kept_where_asked():
    asked: list[list[str]] = []

    def measure(words: Sequence[str]) -> dict[str, Any]:
        asked.append(list(words))
        return {"holds": True}

    run([measurement("a", "--seconds 1", "")], options(quick=False, write=True), lambda line: None, measure)
    assert asked == [["a", "--json", "--write"]]


def test_what_reports_nothing_has_its_reason():
    found = call(["decide", "--catalogue", "none"])
    assert "holds" not in found
    assert "invalid choice: 'none'" in found["error"]


def test_a_quick_one_ends_with_one_object():
    words = ["bench", "all", "--quick", "--only", "journal", "--json"]
    command = [sys.executable, "-m", "cordon.main", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=ROOT)
    report = json.loads(done.stdout.splitlines()[-1])
    assert list(report["measurements"]) == ["journal"]
    assert report["measurements"]["journal"]["records_per_s"] > 0
    assert report["held"] + report["missed"] == ["journal"]
    assert report["not_measured"] == []
    assert report["holds"] == (done.returncode == 0) == (report["missed"] == [])
    assert "records_per_s" in done.stderr
