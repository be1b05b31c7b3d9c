"""`cordon audit` and `cordon bench`: what they find, what they say, how they leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.journal import Journal
from cordon.commands.bench import measurements
from cordon.main import app
from tests.parts import ROOT


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    """Two journals of three records each."""
    for name in ("door-0", "service-0"):
        with Journal(tmp_path / name, segment_bytes=4096) as journal:
            journal.append([b'{"id":"t-1"}', b'{"id":"t-2"}'])
            journal.append([b'{"id":"t-3"}'])
    return tmp_path


def test_intact_journals_are_counted_with_their_heads(journals: Path):
    result = CliRunner().invoke(app, ["audit", str(journals)])
    body = json.loads(result.stdout.splitlines()[-1])
    assert (result.exit_code, body["records"], body["damaged"], body["holds"]) == (0, 6, 0, True)
    assert {len(report["head"]) for report in body["journals"]} == {64}
    assert "door-0: 3 records intact" in result.stderr


def test_one_journal_can_be_named(journals: Path):
    result = CliRunner().invoke(app, ["audit", str(journals / "door-0"), "--json"])
    assert json.loads(result.stdout)["records"] == 3
    assert result.stderr == ""


def test_a_changed_byte_is_found_and_named(journals: Path):
    segment = next((journals / "service-0").glob("*.segment"))
    content = bytearray(segment.read_bytes())
    content[content.index(b"t-2")] ^= 1
    segment.write_bytes(content)
    result = CliRunner().invoke(app, ["audit", str(journals)])
    body = json.loads(result.stdout.splitlines()[-1])
    assert (result.exit_code, body["damaged"], body["holds"]) == (1, 1, False)
    assert f"service-0: DAMAGED: segment {segment.name}, record " in result.stderr


def test_nothing_to_verify_is_not_success(tmp_path: Path):
    for place in (tmp_path, tmp_path / "absent"):
        assert CliRunner().invoke(app, ["audit", str(place)]).exit_code == 2


def test_measurements_are_listed_with_what_they_measure():
    listed = CliRunner().invoke(app, ["bench"])
    assert listed.exit_code == 0
    assert len(listed.stdout.splitlines()) == len(measurements(ROOT / "bench"))
    assert all(measurements(ROOT / "bench").values())


def test_only_what_can_be_run_is_a_measurement(tmp_path: Path):
    (tmp_path / "speed.py").write_text('"""How fast.\n\nMore."""\nif __name__ == "__main__":\n    print(1)\n')
    (tmp_path / "shared.py").write_text('"""Not run."""\n')
    assert measurements(tmp_path) == {"speed": "How fast."}


def test_an_unknown_measurement_is_named_with_those_that_exist():
    result = CliRunner().invoke(app, ["bench", "wind"])
    assert result.exit_code == 2
    assert "no measurement is named wind; there are: " in result.stderr
