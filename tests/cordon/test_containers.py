"""Containers and the local stack are the same thing twice. No image is built here: that needs an engine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cordon.settings import Settings, variables
from cordon.stack.flink import Flink
from cordon.stack.local import NAMES, Local, Options, local
from tests.parts import FLINK_PYTHON, ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# What differs between a machine and a network of containers, and nothing else.
ADDRESSES = {
    "jobmanager.rpc.address", "jobmanager.bind-host", "taskmanager.bind-host", "taskmanager.host",
    "rest.address", "rest.bind-address", "io.tmp.dirs", "execution.checkpointing.dir", "pipeline.jars",
    "python.executable", "python.client.executable",
}  # fmt: skip


def words(file: Path) -> dict[str, str]:
    """A flat YAML file with every value as it is written."""
    loaded: dict[str, str] = yaml.load(file.read_text(), yaml.BaseLoader)
    return loaded


@pytest.fixture
def stack(tmp_path: Path) -> Local:
    return local(Settings(), tmp_path, Options(usual_ports=False))


def test_the_compose_file_is_one():
    schema = json.loads((Path(__file__).parent / "compose_spec.json").read_text())
    jsonschema.Draft201909Validator(schema).validate(COMPOSE)


def test_compose_runs_the_parts_of_the_local_stack_and_the_demo(stack: Local):
    assert {part.name for part in stack.parts} == set(NAMES)
    assert set(SERVICES) == {*NAMES, "demo"}


def test_compose_waits_for_what_the_local_stack_waits_for(stack: Local):
    for part in stack.parts:
        waits = set(SERVICES[part.name].get("depends_on", {}))
        # Compose starts the task manager after its job manager; here it looks for it by itself.
        assert waits - {"jobmanager"} == set(part.needs), part.name


def test_our_processes_are_the_same_modules(stack: Local):
    commands = {part.name: part.command for part in stack.parts}
    for name in ("topics", "jobs", "service", "door", "publisher", "projector", "webhooks"):
        assert SERVICES[name]["command"] == ["python", "-m", commands[name][-1]]


def test_every_setting_that_compose_gives_exists():
    known = set(variables())
    for name, service in SERVICES.items():
        given = {key for key in service.get("environment", {}) if key.startswith("CORDON_")}
        assert given <= known, name


def test_the_broker_is_the_one_of_the_local_stack():
    pom = (ROOT / "deploy" / "maven" / "kafka" / "pom.xml").read_text()
    version = re.search(r"<artifactId>kafka_2.13</artifactId>\s*<version>([^<]+)", pom)
    assert version is not None
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{version[1]}"


def test_the_broker_has_the_properties_of_the_local_stack(stack: Local):
    lines = (stack.kafka.directory / "server.properties").read_text().splitlines()
    properties = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    ours = {
        key: value
        for key, value in properties.items()
        if not key.startswith(("listener", "advertised", "controller", "inter.broker", "node", "process"))
        and key
        not in ("log.dirs", "num.network.threads", "num.io.threads", "num.recovery.threads.per.data.dir")
    }
    theirs = SERVICES["kafka"]["environment"]
    assert {key: theirs[f"KAFKA_{key.upper().replace('.', '_')}"] for key in ours} == ours


def test_flink_has_the_configuration_of_the_local_stack(tmp_path: Path):
    flink = Flink(tmp_path, FLINK_PYTHON, ROOT / ".jars" / "flink", 8081, 6123, slots=4)
    shipped = words(ROOT / "deploy" / "flink" / "config.yaml")
    ours = {key: value for key, value in flink.configuration().items() if key not in ADDRESSES}
    theirs = {key: value for key, value in shipped.items() if key not in ADDRESSES}
    assert theirs == ours
    assert file_names(shipped["pipeline.jars"]) == file_names(flink.configuration()["pipeline.jars"])


def file_names(uris: str) -> list[str]:
    """The last parts of URIs."""
    return [uri.rsplit("/", 1)[1] for uri in uris.split(";")]


def test_our_jar_is_built_for_the_flink_that_is_installed():
    pom = (ROOT / "stream" / "java" / "pom.xml").read_text()
    version = re.search(r"<flink.version>([^<]+)", pom)
    assert version is not None
    assert f"apache-flink=={version[1]} " in (ROOT / "requirements" / "flink.txt").read_text()


def test_the_written_configuration_is_yaml_and_reads_back(stack: Local):
    assert words(stack.directory / "flink" / "conf" / "config.yaml") == stack.flink.configuration()


@pytest.mark.parametrize("stage", ["service", "flink"])
def test_an_image_runs_unprivileged_with_a_health_check(stage: str):
    text = DOCKERFILE.split(f"FROM python AS {stage}\n", 1)[1].split("\nFROM ", 1)[0]
    assert re.search(r"^USER cordon$", text, flags=re.MULTILINE)
    assert "HEALTHCHECK" in text


def test_every_file_that_an_image_copies_exists():
    sources = [
        word
        for line in DOCKERFILE.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]
    assert [source for source in sources if not (ROOT / source).exists()] == []


@pytest.mark.parametrize(
    "name", ["JOURNAL__DIRECTORY", "AUDIT__ANCHORS", "AUDIT__KEYS", "VAULT__DIRECTORY", "WEBHOOKS__FILE"]
)
def test_what_is_written_lies_in_a_volume(name: str):
    """The image's own folders belong to root."""
    assert re.search(rf"CORDON_{name}=/var/lib/cordon/[\w.]+", DOCKERFILE)
    assert re.search(rf"CORDON_{name}: /var/lib/cordon/[\w.]+", (ROOT / "docker-compose.yml").read_text())
