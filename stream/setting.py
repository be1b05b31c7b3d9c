"""What the Flink jobs are told: the stack's environment, parsed once.

CORDON_TENANT                         demo
CORDON_CATALOGUE__NAME                payments, handbook or FILE.py
CORDON_REDIS__URL, __CLUSTER          redis://HOST:PORT/DB, unix:///PATH or cluster://HOST:PORT,...
CORDON_KAFKA__BOOTSTRAP, __DECISIONS, __EVENTS, __LABELS, __GROUP
CORDON_FLINK__REST                    http://HOST:PORT of the cluster
CORDON_FLINK__CHECKPOINTS             URI that keeper, job manager and task managers all see
CORDON_FLINK__CHECKPOINT_INTERVAL_MS, __PARALLELISM
CORDON_FLINK__STATE                   rocksdb (default) or hashmap
CORDON_FLINK__JARS                    directory of the jars that the jobs take
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from features.catalogue import Catalogue, load
from features.sql import TOPICS, Topic
from stream.link import Place, parse_place

State = Literal["rocksdb", "hashmap"]
_TRUE: Final = ("1", "true", "yes", "on")


class InvalidSetting(ValueError):
    """The environment does not say what to run: correct the named variable."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One installation, as its Flink jobs see it. `topics`: Kafka's name of each topic of the log."""

    tenant: str
    catalogue: Catalogue
    place: Place
    bootstrap: str
    topics: Mapping[Topic, str]
    group: str
    rest: str
    checkpoints: str
    checkpoint_interval_ms: int
    parallelism: int
    state: State
    jars: tuple[Path, ...]


def parse(environment: Mapping[str, str], root: Path) -> Setting:
    """The setting in an environment; relative paths count from `root`. Raises `InvalidSetting`."""

    def text(name: str, default: str) -> str:
        return environment.get(f"CORDON_{name}") or default

    def number(name: str, default: int) -> int:
        value = text(name, str(default))
        if not value.isdigit() or int(value) < 1:
            raise InvalidSetting(f"CORDON_{name}={value}: write a whole number, at least 1")
        return int(value)

    state = text("FLINK__STATE", "rocksdb")
    if state not in ("rocksdb", "hashmap"):
        raise InvalidSetting(f"CORDON_FLINK__STATE={state}: write rocksdb or hashmap")
    directory = root / text("FLINK__JARS", ".jars/flink")
    jars = tuple(sorted(directory.glob("*.jar")))
    if not jars:
        raise InvalidSetting(f"CORDON_FLINK__JARS: no jar in {directory}; run `make setup`")
    try:
        clustered = text("REDIS__CLUSTER", "").lower() in _TRUE
        place = parse_place(text("REDIS__URL", "redis://127.0.0.1:6379/0"), clustered)
    except ValueError as error:
        raise InvalidSetting(f"CORDON_REDIS__URL: {error}") from error
    return Setting(
        tenant=text("TENANT", "demo"),
        catalogue=load(text("CATALOGUE__NAME", "payments")),
        place=place,
        bootstrap=text("KAFKA__BOOTSTRAP", "127.0.0.1:9092"),
        topics={topic: text(f"KAFKA__{topic.upper()}", topic) for topic in TOPICS},
        group=text("KAFKA__GROUP", "cordon"),
        rest=text("FLINK__REST", "http://127.0.0.1:8081").rstrip("/"),
        checkpoints=_absolute(text("FLINK__CHECKPOINTS", "file:.cordon/checkpoints"), root),
        checkpoint_interval_ms=number("FLINK__CHECKPOINT_INTERVAL_MS", 30_000),
        parallelism=number("FLINK__PARALLELISM", 1),
        state="rocksdb" if state == "rocksdb" else "hashmap",
        jars=jars,
    )


def _absolute(uri: str, root: Path) -> str:
    if uri.startswith("file:"):
        path = uri.removeprefix("file:")
        return (root / (path.removeprefix("//") if path.startswith("//") else path)).resolve().as_uri()
    return uri if "://" in uri else (root / uri).resolve().as_uri()
