"""The whole stack, small: what `cordon parity`, `cordon drill` and `make demo` show at length.

Real Kafka, Flink, Valkey and our own processes, started and stopped here.
"""

from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client import Client, InvalidRequest
from cordon.commands.parity import payments_plan
from cordon.parity import Keeper, Outcome, Plan, judge, replay_of, run
from cordon.pipeline import pipeline
from cordon.stack.local import Options
from features import load
from features.history import load_history
from features.tier import DAY
from models.pipeline import train_history
from models.train import TrainingPlan
from stream.replay.manifest import Manifest
from stream.replay.pace import Pace
from stream.replay.run import Replay

pytestmark = [pytest.mark.parts, pytest.mark.long, pytest.mark.timeout(420)]

PARCELS = """
from features import (
    DAY, HOUR, Catalogue, Distinct, Entity, Field, Gap, Label, Novelty, Schema, Window, hour, value,
)

SCHEMA = Schema(
    name="parcels",
    fields=(
        Field("amount", "amount", required=True, column="value_cents"),
        Field("sender", "text", required=True),
        Field("depot", "text"),
        Field("service", "category", values=("standard", "express")),
    ),
    entities=(
        Entity("sender", ("sender",)), Entity("depot", ("depot",)), Entity("route", ("sender", "depot")),
    ),
    primary="sender",
    subject="sender",
    id_column="parcel",
    time_column="posted_at",
    label=Label("stolen"),
    lateness_ms=6 * HOUR,
)

CATALOGUE = Catalogue(
    "parcels",
    SCHEMA,
    (
        value("amount", "money"),
        value("service", "code"),
        hour(),
        Window("sender", "count", HOUR),
        Window("sender", "mean", 7 * DAY, "amount"),
        Gap("sender"),
        Novelty("sender", "depot", 7 * DAY),
        Distinct("sender", "depot", DAY),
        Window("depot", "max", DAY, "amount"),
        Window("route", "count", 7 * DAY),
        Window("depot", "count", 7 * DAY, source="fraud"),
    ),
)
"""


DAYS = 6
"""A replay squeezes event time: at RATE, the allowed lateness is two thirds of a second."""
RATE = 150.0


def parcels(path: Path, rows: int) -> Path:
    """A history of something that the project has never heard of; dear express parcels get stolen."""
    chance = np.random.default_rng(5)
    value = chance.lognormal(8, 1, rows).astype(np.int64)
    express = chance.random(rows) < 0.3
    stolen = chance.random(rows) < np.where(express & (value > 6_000), 0.35, 0.01)
    depot = [
        None if gone else f"d{n}"
        for n, gone in zip(chance.integers(0, 9, rows), chance.random(rows) < 0.1, strict=True)
    ]
    columns = {
        "parcel": [f"p{i}" for i in range(rows)],
        "posted_at": np.sort(chance.integers(1_700_000_000_000, 1_700_000_000_000 + DAYS * DAY, rows)),
        "value_cents": value,
        "sender": [f"s{n}" for n in chance.integers(0, 60, rows)],
        "depot": depot,
        "service": np.where(express, "express", "standard"),
        "stolen": stolen,
    }
    pq.write_table(pa.table(columns), path)
    return path


def differences(outcome: Outcome) -> dict[str, int]:
    """Values that differ, from the oracle's and from the offline builder's."""
    found: dict[str, int] = {}
    for report in (outcome.oracle, outcome.offline):
        for counts in (report.mismatch, report.missing, report.extra):
            for name, number in counts.items():
                if number:
                    found[name] = found.get(name, 0) + number
    return found


def test_a_catalogue_never_heard_of_trains_replays_and_decides(tmp_path: Path) -> None:
    file = tmp_path / "parcels.py"
    file.write_text(PARCELS)
    catalogue = load(str(file))
    path = parcels(tmp_path / "parcels.parquet", 2_500)
    history = load_history(path, catalogue.schema, label_delay_ms=DAY)
    cutoff_ms = int(history.time_ms.max()) + DAY
    model, _ = train_history(
        catalogue, history, tmp_path / "models", cutoff_ms=cutoff_ms, plan=TrainingPlan(DAY)
    )
    plan = Plan(str(file), path, label_delay_ms=DAY)
    keeper = Keeper(None)
    overrides = {"catalogue": {"name": str(file)}, "decide": {"clock": "event", "model_dir": model.resolve()}}
    with pipeline(tmp_path / "stack", overrides, options=Options(usual_ports=False), keep=keeper) as running:
        past = replay_of(plan, catalogue)
        half = 1_700_000_000_000 + DAYS * DAY // 2
        running.kafka(Replay(past, before_ms=half, quiet=True))
        running.settle(flink=False)
        running.http(Replay(past, pace=Pace(rate=RATE), since_ms=half, quiet=True))
        running.settle()
        outcome = judge(plan, running, keeper.log, Manifest(), lambda line: None)
        base = running.plan.addresses["http"]
        described = httpx.get(f"{base}/openapi.json").raise_for_status().text
        with Client(base, running.key) as client:
            decided = client.decision("p2499")
            explained = client.explanation("p2499")
            with pytest.raises(InvalidRequest) as refused:
                client.decide({"transaction_id": "x", "time": half, "amount": 1})
    assert differences(outcome) == {}
    assert outcome.oracle.decisions == 2_500
    assert (outcome.surplus, outcome.apart) == (0, 0)
    assert decided.degraded == ()
    assert 0 <= (decided.score or 0) <= 1_000
    assert explained
    assert '"sender"' in described
    assert "sender" in refused.value.problem.detail


@pytest.mark.parametrize("fast_lane", [True, False], ids=["fast lane", "lockstep"])
def test_every_decision_of_a_disturbed_stream_equals_its_recomputation(
    tmp_path: Path, fast_lane: bool
) -> None:
    plan = payments_plan(tmp_path, 1_500 if fast_lane else 400, fast_lane=fast_lane, rate=250.0)
    outcome = run(plan, tmp_path / "stack", lambda line: None)
    assert differences(outcome) == {}
    assert outcome.oracle.decisions == outcome.manifest.sent["transaction"]
    assert (outcome.surplus, outcome.apart, outcome.oracle.excluded) == (0, 0, 0)
    assert outcome.dead_letters == outcome.manifest.malformed.total()
