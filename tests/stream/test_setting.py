"""Settings of the jobs: what is read, what is refused, and with what advice."""

from pathlib import Path

import pytest

from stream.setting import InvalidSetting, parse


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with a connector's jar where it is looked for."""
    (tmp_path / ".jars" / "flink").mkdir(parents=True)
    (tmp_path / ".jars" / "flink" / "connector.jar").touch()
    return tmp_path


def test_what_is_not_said_has_a_default(root: Path) -> None:
    setting = parse({}, root)
    assert (setting.tenant, setting.catalogue.name, setting.parallelism) == ("demo", "payments", 1)
    assert setting.topics == {"decisions": "decisions", "events": "events", "labels": "labels"}
    assert setting.checkpoints == (root / ".cordon" / "checkpoints").as_uri()
    assert [jar.name for jar in setting.jars] == ["connector.jar"]
    assert setting.state == "rocksdb"


def test_the_stacks_variables_are_read(root: Path) -> None:
    setting = parse(
        {
            "CORDON_TENANT": "acme",
            "CORDON_CATALOGUE__NAME": "handbook",
            "CORDON_REDIS__URL": "redis://store:7000/1",
            "CORDON_REDIS__CLUSTER": "true",
            "CORDON_KAFKA__BOOTSTRAP": "broker:1",
            "CORDON_KAFKA__LABELS": "acme.labels",
            "CORDON_FLINK__REST": "http://flink:8081/",
            "CORDON_FLINK__CHECKPOINTS": "s3://bucket/here",
            "CORDON_FLINK__PARALLELISM": "8",
            "CORDON_FLINK__STATE": "hashmap",
        },
        root,
    )
    assert (setting.tenant, setting.catalogue.name) == ("acme", "handbook")
    assert (setting.place.cluster, setting.place.seeds[0].port) == (True, 7000)
    assert (setting.bootstrap, setting.topics["labels"]) == ("broker:1", "acme.labels")
    assert (setting.rest, setting.checkpoints) == ("http://flink:8081", "s3://bucket/here")
    assert (setting.parallelism, setting.state) == (8, "hashmap")


@pytest.mark.parametrize(
    ("variable", "value", "advice"),
    [
        ("CORDON_FLINK__PARALLELISM", "many", "write a whole number"),
        ("CORDON_FLINK__CHECKPOINT_INTERVAL_MS", "0", "write a whole number, at least 1"),
        ("CORDON_FLINK__STATE", "memory", "write rocksdb or hashmap"),
        ("CORDON_FLINK__JARS", "nowhere", "run `make setup`"),
        ("CORDON_REDIS__URL", "http://x", "write redis://"),
    ],
)
def test_a_wrong_setting_is_refused_with_advice(root: Path, variable: str, value: str, advice: str) -> None:
    with pytest.raises(InvalidSetting, match=advice):
        parse({variable: value}, root)
