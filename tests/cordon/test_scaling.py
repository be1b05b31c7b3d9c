"""The cost model: its arithmetic, and the page that it fills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cordon.evidence import RESULTS, ROOT
from cordon.scaling import (
    DEMANDS,
    cores,
    cost_table,
    costs,
    demand_table,
    fill,
    first,
    first_sentence,
    partitions,
    scale_table,
    state_bytes,
)

PAGE = ROOT / "docs" / "scaling.md"


def write(results: Path, name: str, **body: Any) -> None:
    (results / f"{name}.json").write_text(json.dumps(body))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    parts = {
        "service": 300.0,
        "door": 0.0,
        "valkey": 60.0,
        "kafka": 100.0,
        "publisher": 30.0,
        "projector": 120.0,
    }
    flink = {"jobmanager": 5.0, "taskmanager": 390.0, "jobs": 5.0}
    write(tmp_path, "http_beside_1000", cpu_us_per_request={**parts, **flink, "generator": 30.0})
    write(tmp_path, "decide", cpu_us_per_tx={"door": 120.0, "valkey": 60.0, "kafka": 10.0})
    entities = {"card": {"keys": 10, "memory": 2_000}, "merchant": {"keys": 5, "memory": 4_000}}
    write(tmp_path, "memory", cards=10, transactions_per_card=100.0, entities=entities)
    write(tmp_path, "features", tps=10_000)
    write(tmp_path, "features_p2", tps=15_000)
    return tmp_path


def test_the_page_is_current():
    assert fill(PAGE.read_text(), RESULTS) == PAGE.read_text(), "run `make reference`"


def test_parts_count_by_whatever_name_a_result_gives_them():
    found = costs(
        {"stream_door": 190.0, "redis": 180.0, "flink_jvm": 210.0, "flink_python": 5.0, "generator": 9.0}
    )
    assert {name: us for name, us in found.items() if us} == {"decide": 190.0, "Redis": 180.0, "Flink": 215.0}


def test_cores_are_rate_times_cost_at_three_fifths_of_a_processor():
    assert cores(6_000, 100) == pytest.approx(1.0)


def test_costs_belong_to_stages_and_the_load_to_none():
    found = costs({"taskmanager": 400.0, "jobs": 20.0, "generator": 99.0, "valkey": 50.0})
    assert found == {"Redis": 50.0, "Flink": 420.0}


def test_what_takes_most_of_one_processor_ends_first():
    assert first({"decide": 100.0, "project": 125.0, "Flink": 900.0}) == ("project", 8_000.0)


def test_every_reader_has_two_partitions():
    assert partitions(0.1, 0.2) == 2
    assert partitions(3.0, 2.0) == 8
    assert partitions(5.0, 9.0) == 32


def test_state_is_of_all_entities_per_remembered_transaction():
    memory = {
        "cards": 10,
        "transactions_per_card": 100.0,
        "entities": {"card": {"keys": 10, "memory": 2_000}, "merchant": {"keys": 5, "memory": 4_000}},
    }
    assert state_bytes(memory) == 40.0


def test_a_peak_of_a_day_is_three_times_its_average():
    assert [round(demand.peak) for demand in DEMANDS] == [347, 34_722, 100_000]


def test_the_tables_say_what_was_measured(results: Path):
    assert "| decide | 300.0 | – | 120.0 |" in cost_table(results)
    assert "| whole | 1,010.0 | – | 190.0 |" in cost_table(results)
    demands = demand_table(results)
    assert "| cores: decide | 0.2 | 17.4 | 50.0 |" in demands
    assert "| decision processes | 1 | 18 | 50 |" in demands
    assert "| Redis shards, by processor | 1 | 4 | 10 |" in demands
    assert "| partitions | 2 | 64 | 256 |" in demands
    assert "| memory of Redis, GiB | 34 | 3,353 | 9,656 |" in demands
    assert first_sentence(results) == (
        "One process of each, a processor for each: decide, at 3,333 transactions a second."
    )
    assert "| Flink's parallelism | transactions a second | 10,000.0 | 15,000.0 |" in scale_table(results)


def test_without_results_cells_stay_empty(tmp_path: Path):
    assert "| whole | – | – | – |" in cost_table(tmp_path)
    assert "| cores in all | – | – | – |" in demand_table(tmp_path)
    assert first_sentence(tmp_path) == "Not measured yet."
