"""The demonstration on parts that run elsewhere."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

from cordon.demo.attach import NotAttached, await_doors, decided, offer
from cordon.settings import Settings
from cordon.stack.local import Options, local
from tests.parts import ROOT, RunningKafka

WAIT = ROOT / "deploy" / "wait-for-model"


def test_attached_starts_nothing_and_leads_where_the_settings_do(tmp_path: Path):
    settings = Settings.model_validate(
        {
            "service": {"host": "service"},
            "kafka": {"bootstrap": "kafka:19092"},
            "redis": {"url": "redis://valkey:6379/0"},
        }
    )
    plan = local(settings, tmp_path, Options(attach=True))
    assert plan.parts == ()
    assert plan.settings == settings
    assert plan.addresses == {
        "http": "http://service:8000",
        "kafka": "kafka:19092",
        "redis": "redis://valkey:6379/0",
        "flink": "http://127.0.0.1:8081",
    }


def test_a_log_that_holds_decisions_is_refused(kafka: RunningKafka, monkeypatch: pytest.MonkeyPatch):
    settings = kafka.settings()
    assert not decided(settings)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    producer.produce(settings.decisions, b"{}")
    assert producer.flush(10) == 0
    assert decided(settings)
    monkeypatch.setenv("CORDON_KAFKA__BOOTSTRAP", kafka.bootstrap)
    monkeypatch.setenv("CORDON_KAFKA__DECISIONS", settings.decisions)
    with pytest.raises(NotAttached, match=r"docker compose down --volumes"):
        await_doors(Path("model"), lambda line: None)


def test_a_door_waits_until_the_model_is_offered(tmp_path: Path):
    model, place = tmp_path / "versions" / "payments-1", tmp_path / "model"
    model.mkdir(parents=True)
    (model / "manifest.json").write_text("{}")
    door = subprocess.Popen(
        [WAIT, "echo", "serving"],
        env={"PATH": "/usr/bin:/bin", "CORDON_DECIDE__MODEL_DIR": str(place)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with door:
        time.sleep(0.3)
        assert door.poll() is None
        offer(model, place)
        out, _ = door.communicate(timeout=10)
    assert out == "serving\n"


def test_a_newer_model_replaces_the_link(tmp_path: Path):
    place = tmp_path / "model"
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        offer(tmp_path / version, place)
    assert place.resolve() == tmp_path / "2"


def test_without_a_model_a_door_starts_at_once():
    said = subprocess.run(
        [WAIT, "echo", "serving"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    assert said.stdout == "serving\n"
