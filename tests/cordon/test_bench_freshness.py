"""The measurement of freshness: when a position counts as passed, and a small run of the whole stack."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bench.freshness import latencies
from bench.load.course import NotMeasured, Run
from bench.load.generator import Answered, Load
from bench.load.watermark import Watch
from tests.api.artefact import small_artefact
from tests.parts import ROOT


def watched(*looks: dict[int, int]) -> Watch:
    """One look after the other, the clock at 1.0, 2.0, ...; the last one is seen until the end."""
    clock = itertools.count(1.0)
    number = itertools.count()
    noted = threading.Event()

    def reached() -> dict[int, int]:
        look = next(number)
        if look >= len(looks):
            noted.set()
        return looks[min(look, len(looks) - 1)]

    with Watch(reached, lambda: next(clock)) as watch:
        assert noted.wait(30)
    return watch


def test_a_record_is_passed_at_the_first_look_that_lies_behind_it():
    #   offsets      0  1  2  3  4  5
    #   look 1 (1.0)          |            next offset 3: 0, 1 and 2 are passed
    #   look 2                |            nothing new
    #   look 3 (2.0)                |      next offset 5
    watch = watched({0: 3}, {0: 3}, {0: 5})
    assert [watch.passed_s(0, offset) for offset in range(6)] == [1.0, 1.0, 1.0, 2.0, 2.0, None]


def test_partitions_are_apart():
    watch = watched({0: 0, 1: 1}, {0: 1, 1: 1})
    assert watch.passed_s(1, 0) == 2.0
    assert watch.passed_s(0, 0) == 3.0
    assert watch.passed_s(2, 0) is None


def test_a_look_that_fails_is_not_forgotten():
    asked = threading.Event()

    def fails() -> dict[int, int]:
        asked.set()
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"), Watch(fails, time.monotonic):
        assert asked.wait(30)


def run_of(*latency_ms: float) -> Run:
    answers = tuple(Answered(ms, 0.0, 200, b"") for ms in latency_ms)
    due_s = [number * 1.0 for number in range(len(answers))]
    return Run(1.0, due_s, Load(answers, float(len(answers)), 0, 0.0, started_s=100.0), 0.0, {})


def test_the_clock_starts_when_a_request_was_due():
    #   due      100.0      101.0      102.0     (start of the run: 100.0)
    #   answered   +10 ms     +20 ms     +30 ms
    #   visible  100.050    101.050    102.130
    found = latencies(run_of(10.0, 20.0, 30.0), [100.05, 101.05, 102.13])
    assert found["max_ms"] == 130.0
    assert found["p50_ms"] == 50.0
    assert found["after_answer"]["max_ms"] == 100.0


def test_a_decision_that_never_became_visible_is_no_figure():
    with pytest.raises(NotMeasured, match="1 decisions did not become visible"):
        latencies(run_of(10.0, 20.0), [100.05, None])


@pytest.mark.parts
@pytest.mark.long
def test_a_small_measurement_of_the_whole_stack(tmp_path: Path):
    words = ["--rate", "50", "--seconds", "4", "--warm", "300", "--warm-seconds", "2"]
    words += ["--model", str(small_artefact(tmp_path))]
    command = [sys.executable, "-m", "cordon.main", "bench", "freshness", "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=ROOT)
    assert len(done.stdout.splitlines()) == 1, done.stderr
    found = json.loads(done.stdout)
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert found["after_answer"]["p50_ms"] < found["p50_ms"]
    assert found["own_key_stale"] == 0
    assert (found["decisions"], found["journalled"]) == (200, 600)
    assert (found["warm"], found["warm_seconds"]) == (300, 2.0)
    assert found["achieved_rps"] >= 0.98 * found["intended_rps"]
    assert found["holds"] == (done.returncode == 0) == (found["p99_ms"] < 100)
    assert {"seconds", "runs", "workers", "connections", "cpu", "commit"} <= found.keys()
