"""`cordon replay` as people start it: any catalogue, either door, an exit status that can be trusted."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.parts import ROOT
from tests.stream.door import Door, serving
from tests.stream.histories import START_MS, parcel, write_parcels

CATALOGUE = """
from features import Catalogue, Window
from tests.stream.histories import PARCELS

CATALOGUE = Catalogue("parcels", PARCELS, (Window("sender", "count", 3_600_000),))
"""


async def replay(*options: str) -> tuple[int, dict, str]:
    """Exit status, the JSON object of the last line, stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cordon.main", "replay", *options,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    lines = out.decode().splitlines()
    return process.returncode or 0, json.loads(lines[-1]) if lines else {}, err.decode()


def into(door: Door, *options: str) -> tuple[int, dict, str]:
    async def run() -> tuple[int, dict, str]:
        async with serving(door) as url:
            return await replay("--url", url, *options)

    return asyncio.run(run())


@pytest.fixture
def parcels(tmp_path: Path) -> list[str]:
    """Options for a history of a schema that the project has never heard of."""
    rows = [parcel(n, n * 1_000, sender=n % 7, LOST=n % 5 == 0) for n in range(200)]
    (tmp_path / "catalogue.py").write_text(CATALOGUE)
    history = write_parcels(tmp_path / "parcels.parquet", rows)
    return ["--history", str(history), "--catalogue", str(tmp_path / "catalogue.py")]


def test_a_foreign_history_with_everything_injected_is_answered_as_it_should_be(parcels):
    shares = ["--duplicates", "0.1", "--conflicts", "0.1", "--disorder", "0.1", "--malformed", "0.1"]
    status, result, stderr = into(Door(), *parcels, "--label-delay", "20s", "--seed", "3", *shares)
    assert status == 0, stderr
    assert result["sent"] == {"transaction": 200, "label": 36}
    spoiled = sum(result["malformed"].values()) + sum(result["conflicts"].values())
    assert result["refused"] == spoiled > 10
    assert result["holds"] is True
    assert "replay 200/200 transactions" in stderr


def test_a_door_that_refuses_good_messages_is_a_failure(parcels):
    status, result, _ = into(Door(status=422), *parcels)
    assert status == 1
    assert result["holds"] is False


def test_bounds_and_a_rate(parcels):
    bounds = ["--from", str(START_MS + 50_000), "--until", str(START_MS + 100_000), "--rate", "500"]
    status, result, _ = into(Door(), *parcels, *bounds)
    assert status == 0
    assert result["sent"]["transaction"] == 50
    assert result["seconds"] >= 0.1


def test_a_generated_world_arrives(tmp_path):
    path = tmp_path / "made" / "world.parquet"
    options = ["--generate", "--customers", "60", "--days", "2", "--history", str(path)]
    status, result, stderr = into(Door(), *options)
    assert status == 0, stderr
    assert path.is_file()
    assert result["sent"]["transaction"] > 50
    assert result["sent"]["event"] > 50


def test_what_does_not_fit_is_said_in_one_line(parcels, tmp_path):
    for options, message in (
        ([*parcels, "--catalogue", "payments"], "no column 'time'"),
        ([*parcels, "--rate", "5", "--speed-up", "5"], "not both"),
    ):
        status, _, stderr = asyncio.run(replay("--url", "http://127.0.0.1:9", *options))
        assert status == 2
        assert message in stderr
        assert "Traceback" not in stderr


@pytest.mark.parts
def test_the_kafka_door(parcels, kafka):
    topic = kafka.topic("in", partitions=2)
    options = ["--door", "kafka", "--bootstrap", kafka.bootstrap, "--topic", topic]
    status, result, stderr = asyncio.run(replay(*parcels, *options))
    assert status == 0, stderr
    assert result["answers"] == {"delivered": result["messages"]}
