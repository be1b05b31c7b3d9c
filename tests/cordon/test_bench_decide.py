"""The measurement of the Kafka door: its report, and what it refuses to report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api.journal import Journal
from api.record import Kind, encode_json, pack
from bench.decide import Kept, check, journal_of, simulated, stages
from bench.load.course import NotMeasured
from cordon.settings import Settings
from cordon.stack.local import Local, Options, local
from features import load
from features.event import parse_transaction
from features.rates import rates
from tests.api.artefact import small_artefact
from tests.parts import ROOT

HANDBOOK = load("handbook")
TAKEN = {"batch": 2, "observe": 40, "features": 2, "score": 10, "rules": 4, "explain": 0}


def bench(*words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "cordon.main", "bench", "decide", "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=ROOT)
    assert done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return {**json.loads(done.stdout), "exit": done.returncode}


def record(number: int, **other: object) -> dict[str, object]:
    whole = {"degraded": [], "features": [1.0] * len(HANDBOOK.names), "reasons": [{"weight": 0.5}]}
    return {"type": "decision", "id": f"tx-{number}", "claim": "new", "stages_us": TAKEN, **whole, **other}


@pytest.fixture
def plan(tmp_path: Path) -> Local:
    return local(Settings.load(catalogue={"name": "handbook"}), tmp_path, Options(usual_ports=False))


def write(plan: Local, *records: dict[str, object]) -> None:
    with Journal(journal_of(plan)) as journal:
        journal.append([pack(Kind.DECISION, "key", encode_json(found)) for found in records])


def test_what_is_in_the_journal_once_and_whole_is_counted(plan: Local):
    write(plan, record(0), record(1, reasons=[{"weight": None}]))
    found = check(plan, HANDBOOK, {"tx-0", "tx-1"}, whole=True)
    assert found == [Kept(True, TAKEN), Kept(False, TAKEN)]


def test_what_a_batch_took_is_divided_by_its_size():
    other = {**TAKEN, "batch": 1, "score": 7}
    found = stages([Kept(True, TAKEN), Kept(True, TAKEN), Kept(False, other)], 50.0)
    assert found["score"] == round((5 + 5 + 7) / 3, 1)
    assert sum(found.values()) == pytest.approx(50.0, abs=0.3)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"degraded": ["features"]}, "tx-1 was decided without features"),
        ({"degraded": ["model"]}, "tx-1 was decided without model"),
        ({"features": [1.0]}, "a vector of 1 features"),
        ({"type": "abandoned"}, "abandoned"),
        ({"claim": "recovered"}, "another kind"),
        ({"id": "tx-0"}, "2 are not in the journal exactly once, such as tx-0"),
        ({"id": "tx-7"}, "such as tx-1"),
    ],
)
def test_anything_else_is_not_measured(plan: Local, other: dict[str, object], said: str):
    write(plan, record(0), record(1, **other))
    with pytest.raises(NotMeasured, match=said):
        check(plan, HANDBOOK, {"tx-0", "tx-1"}, whole=True)


def test_transactions_of_the_handbooks_shape_are_valid_and_in_order():
    found = list(simulated(HANDBOOK, 200))
    parsed = [parse_transaction(HANDBOOK.schema, rates("EUR"), json.loads(i.body)) for i in found]
    assert [p.id for p in parsed] == [i.id for i in found] == [f"tx-{n}" for n in range(200)]
    times = [p.time_ms for p in parsed]
    assert times == sorted(times)
    assert {i.key.decode() for i in found} == {str(p.values["customer"]) for p in parsed}


@pytest.mark.parts
def test_a_small_measurement_of_payments(tmp_path: Path):
    model = small_artefact(tmp_path)
    found = bench("--transactions", "1500", "--warm", "500", "--model", str(model))
    assert found["tps"] > 0
    assert 0 < found["transactions"] <= 1500
    assert found["transactions"] + found["warm"] >= 2000
    assert found["features"] == len(load("payments").names)
    assert found["model"] == model.name
    assert found["holds"] == (found["exit"] == 0)
    assert all(found["cpu_us_per_tx"][part] > 0 for part in ("door", "valkey", "kafka"))
    assert all(found["wall_us_per_tx"][stage] > 0 for stage in ("features", "score", "rest"))
    assert {"seconds", "runs", "workers", "connections", "cpu", "commit"} <= found.keys()


@pytest.mark.parts
def test_a_small_measurement_of_the_handbook_decides_by_rules_alone():
    found = bench("--catalogue", "handbook", "--transactions", "1500", "--warm", "500")
    assert found["tps"] > 0
    assert (found["catalogue"], found["model"], found["explained_share"]) == ("handbook", None, 0.0)
