"""Settings: sources, messages, secrets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from api.config import ServiceConfig
from cordon.main import app
from cordon.settings import (
    InvalidSettings,
    Kafka,
    Redis,
    Secrets,
    Settings,
    reference,
    variables,
    without_password,
)
from cordon.stack.flink import Flink
from stream import setting
from tests.parts import ROOT

WORD = "f00d-secret-f00d"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A directory without a file of settings, and an environment without any."""
    monkeypatch.chdir(tmp_path)
    for name in Settings().environment():
        monkeypatch.delenv(name, raising=False)


def test_the_environment_wins_over_the_file_and_the_file_over_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "cordon.toml").write_text('tenant = "bank"\n[kafka]\ngroup = "file"\npartitions = 7\n')
    monkeypatch.setenv("CORDON_KAFKA__GROUP", "environment")
    settings = Settings.load()
    assert (settings.tenant, settings.kafka.group, settings.kafka.partitions) == ("bank", "environment", 7)
    assert settings.kafka.decisions == "decisions"


def test_another_file_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "other.toml").write_text('tenant = "other"\n')
    monkeypatch.setenv("CORDON_CONFIG", str(tmp_path / "other.toml"))
    assert Settings.load().tenant == "other"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "CORDON_REDIS__URL",
            "localhost",
            r"redis\.url \(or CORDON_REDIS__URL\): .*write redis://HOST:PORT/DB",
        ),
        (
            "CORDON_SERVICE__PORT",
            "0",
            r"service\.port \(or CORDON_SERVICE__PORT\): .*greater than or equal to 1",
        ),
        ("CORDON_TENANT", "Über", r"tenant \(or CORDON_TENANT\): "),
        ("CORDON_KAFKA__BOOTSTARP", "x", r"kafka\.bootstarp .*no such setting; `cordon config` lists them"),
        ("CORDON_CONFIG", "absent.toml", r"CORDON_CONFIG=absent\.toml: no such file"),
    ],
)
def test_a_wrong_setting_is_named_with_what_to_do(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings, match=message):
        Settings.load()


def test_a_file_that_is_not_toml_is_named(tmp_path: Path):
    (tmp_path / "cordon.toml").write_text("tenant: demo\n")
    with pytest.raises(InvalidSettings, match=r"cordon\.toml: "):
        Settings.load()


def test_the_parts_receive_the_same_settings_through_their_environment(monkeypatch: pytest.MonkeyPatch):
    settings = Settings(
        tenant="bank",
        redis=Redis(url="unix:///run/valkey.sock", cluster=True),
        kafka=Kafka(bootstrap="10.0.0.1:9092", partitions=12),
        secrets=Secrets(pseudonym=SecretStr(WORD)),
    )
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == settings


def test_only_what_was_said_is_explicit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CORDON_KAFKA__GROUP", "bank")
    assert Settings.load(tenant="bank").environment(explicit=True) == {
        "CORDON_TENANT": "bank",
        "CORDON_KAFKA__GROUP": "bank",
    }


def test_no_secret_is_ever_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CORDON_SECRETS__PSEUDONYM", WORD)
    monkeypatch.setenv("CORDON_REDIS__URL", f"redis://user:{WORD}@10.0.0.1:6379/0")
    monkeypatch.setenv("CORDON_STORE_URL", f"postgresql://cordon:{WORD}@10.0.0.1/cordon")
    shown = CliRunner().invoke(app, ["config"])
    as_environment = CliRunner().invoke(app, ["config", "--env"])
    assert (shown.exit_code, as_environment.exit_code) == (0, 0)
    assert WORD not in shown.output + as_environment.output + repr(Settings.load())
    assert json.loads(shown.stdout)["redis"]["url"] == "redis://user:********@10.0.0.1:6379/0"


def test_an_address_without_a_password_is_shown_whole():
    for address in ("redis://127.0.0.1:6379/0", "unix:///a@b:c", "sqlite:///.cordon/store.sqlite"):
        assert without_password(address) == address


def test_a_wrong_setting_leaves_with_2_and_one_line_each(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CORDON_REDIS__URL", "x")
    monkeypatch.setenv("CORDON_SERVICE__PORT", "x")
    result = CliRunner().invoke(app, ["config"])
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 2


def test_every_setting_is_documented():
    assert (ROOT / "docs" / "reference" / "settings.md").read_text() == reference(), (
        "run `.venv/bin/cordon config --reference > docs/reference/settings.md`"
    )


class Spy(dict[str, str]):
    """An environment that notes which variables it is asked for."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


def test_checkpoints_are_as_far_apart_whoever_starts_the_jobs(tmp_path: Path):
    apart_ms = Settings().flink.checkpoint_interval_ms
    assert setting.parse({}, ROOT).checkpoint_interval_ms == apart_ms
    assert Flink(tmp_path, tmp_path, tmp_path, 1, 2).checkpoint_interval_ms == apart_ms


@pytest.mark.parametrize("parse", [ServiceConfig.from_environment, lambda env: setting.parse(env, ROOT)])
def test_the_variables_that_the_processes_read_are_settings(parse: Callable[[Spy], object]):
    # `api` and `stream` cannot import the settings: a name that they read and nobody sets would be silent.
    environment = Spy(Settings().environment())
    parse(environment)
    assert environment.asked
    assert environment.asked <= set(variables())
