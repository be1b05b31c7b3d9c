"""The command line: what a person types, on real parts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cordon import main
from cordon.evidence import Evidence, commit
from cordon.stack.process import Identity, start_time
from cordon.stack.record import Record, directory_of

CORDON = [sys.executable, "-m", "cordon.main"]
WITHIN_S = 60


@pytest.fixture
def name() -> Iterator[str]:
    """A stack of its own below .cordon, stopped and removed afterwards."""
    chosen = f"test-{os.getpid()}"
    yield chosen
    cordon("down", "--name", chosen)
    shutil.rmtree(directory_of(chosen), ignore_errors=True)


def cordon(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CORDON, *words], capture_output=True, text=True, timeout=WITHIN_S, check=False)


def last_line(text: str) -> Any:
    return json.loads(text.strip().splitlines()[-1])


def gone(pids: list[int]) -> bool:
    deadline_s = time.monotonic() + 15
    while any(start_time(pid) is not None for pid in pids):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    return True


def test_a_stack_goes_up_shows_itself_and_goes_down(name: str):
    up = cordon("up", "--name", name, "--only", "valkey")
    assert up.returncode == 0, up.stderr
    assert last_line(up.stdout)["addresses"]["redis"].startswith("redis://127.0.0.1:")

    shown = cordon("status", "--name", name)
    status = last_line(shown.stdout)
    assert (shown.returncode, status["phase"]) == (0, "ready")
    assert [(part["name"], part["state"]) for part in status["parts"]] == [("valkey", "ready")]

    again = cordon("up", "--name", name)
    assert again.returncode == 2
    assert "runs already" in again.stderr

    assert cordon("down", "--name", name).returncode == 0
    assert gone([status["parts"][0]["pid"]])
    assert cordon("status", "--name", name).returncode == 1
    assert cordon("down", "--name", name).returncode == 0


def test_a_killed_supervisor_leaves_no_orphan_and_the_stack_starts_again(name: str):
    assert cordon("up", "--name", name, "--only", "valkey").returncode == 0
    record = Record.read(directory_of(name))
    assert record is not None
    assert record.parts[0].pid is not None
    assert record.supervisor.signal(signal.SIGKILL)
    assert gone([record.supervisor.pid, record.parts[0].pid])
    assert cordon("status", "--name", name).returncode == 1
    assert cordon("up", "--name", name, "--only", "valkey").returncode == 0


def test_an_interrupt_while_it_starts_stops_everything(name: str):
    up = subprocess.Popen(
        [*CORDON, "up", "--name", name, "--only", "kafka"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with up:
        assert up.stderr is not None
        assert "kafka" in up.stderr.readline()
        record = Record.read(directory_of(name))
        assert record is not None
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=WITHIN_S)
    assert up.returncode == 130
    assert gone([record.supervisor.pid, *(part.pid for part in record.parts if part.pid is not None)])


def test_no_secret_is_in_the_record(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CORDON_SECRETS__PSEUDONYM", "f00d-secret-f00d")
    monkeypatch.setenv("CORDON_SERVICE__API_KEYS", "f00d-secret-f00d=admin")
    assert cordon("up", "--name", name, "--only", "valkey").returncode == 0
    texts = [path.read_text(errors="replace") for path in directory_of(name).glob("*") if path.is_file()]
    assert "f00d-secret-f00d" not in "".join(texts)


def test_the_usual_ports_are_passed_over_when_taken_and_kept_afterwards(name: str):
    first = cordon("up", "--name", name, "--only", "valkey")
    url = last_line(first.stdout)["addresses"]["redis"]
    other = f"{name}-other"
    try:
        second = cordon("up", "--name", other, "--only", "valkey")
        assert last_line(second.stdout)["addresses"]["redis"] != url
    finally:
        cordon("down", "--name", other)
        shutil.rmtree(directory_of(other), ignore_errors=True)
    cordon("down", "--name", name)
    assert last_line(cordon("up", "--name", name, "--only", "valkey").stdout)["addresses"]["redis"] == url


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["up", "--only", "kafak"], "no part is named kafak; there are: valkey, kafka"),
        (["up", "--name", "../etc"], "'../etc': a stack's name has letters, digits, - and _ only"),
    ],
)
def test_a_mistake_is_one_message_and_2(words: list[str], message: str):
    result = CliRunner().invoke(main.app, words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_help_names_the_commands_without_importing_them():
    code = (
        "import sys; from cordon.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.startswith('cordon.commands.') or m == 'pydantic'])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(command in shown.stdout for command in ("up", "down", "status", "config"))
    assert shown.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize(("holds", "status"), [(True, 0), (False, 1)])
def test_evidence_ends_with_one_object_and_the_verdict_as_status(
    holds: bool, status: int, capsys: pytest.CaptureFixture[str]
):
    evidence = Evidence.begin("trial")
    evidence.progress("half")
    with pytest.raises(SystemExit) as left:
        evidence.end({"mismatch": 0}, holds=holds)
    out, err = capsys.readouterr()
    assert left.value.code == status
    assert err == "half\n"
    result = last_line(out)
    assert (result["mismatch"], result["commit"], set(result)) == (
        0,
        commit(),
        {"mismatch", "holds", "commit", "seconds"},
    )


def test_evidence_is_kept_with_machine_and_versions(tmp_path: Path):
    with pytest.raises(SystemExit):
        Evidence.begin("trial").end({}, holds=True, write=True, results=tmp_path)
    kept = json.loads((tmp_path / "trial.json").read_text())
    assert {"commit", "machine", "versions", "seconds"} <= set(kept)


def test_outside_a_repository_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CORDON_COMMIT", raising=False)
    assert commit(tmp_path) == "unknown"


def test_an_identity_survives_the_record(tmp_path: Path):
    identity = Identity.of(os.getpid())
    assert identity is not None
    Record(name="trial", phase="ready", supervisor=identity).write(tmp_path)
    read = Record.read(tmp_path)
    assert read is not None
    assert read.alive()
