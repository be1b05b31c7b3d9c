"""What the fixtures of real parts hand to a test."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cordon import settings
from cordon.stack.flink import Flink
from cordon.stack.supervisor import Stack
from cordon.stack.topics import Topic, create_topics, topics
from cordon.stack.valkey import Valkey

ROOT = Path(__file__).resolve().parent.parent
SERVICE_PYTHON = ROOT / ".venv" / "bin" / "python"
FLINK_PYTHON = ROOT / ".venv-flink" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class RunningKafka:
    """One broker for the whole session; every test takes topics of its own."""

    bootstrap: str
    stack: Stack
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def topic(
        self, name: str = "topic", *, partitions: int = 1, options: Mapping[str, str] | None = None
    ) -> str:
        """Creates a topic that no other test has; returns its name."""
        unique = f"{name}.{next(self._numbers)}"
        create_topics(self.bootstrap, [Topic(unique, partitions, options or {})])
        return unique

    def settings(self, *, partitions: int = 4) -> settings.Kafka:
        """Creates all topics of an installation under names that no other test has."""
        number = next(self._numbers)
        names = (
            "transactions",
            "decisions",
            "labels",
            "events",
            "alerts",
            "checkpoints",
            "dead_letters",
            "positions",
        )
        chosen = settings.Kafka.model_validate(
            {name: f"{name}.{number}" for name in names}
            | {"bootstrap": self.bootstrap, "partitions": partitions, "group": f"cordon.{number}"}
        )
        create_topics(self.bootstrap, topics(chosen))
        return chosen


@dataclass(frozen=True, slots=True)
class RunningCluster:
    """Three primaries that own all slots. `url` is the first one's."""

    url: str
    nodes: tuple[Valkey, ...]
    stack: Stack


@dataclass(frozen=True, slots=True)
class RunningFlink:
    """A session cluster. `environment`: what a client (`python`, `flink run`) is started with."""

    rest: str
    python: Path
    environment: Mapping[str, str]
    flink: Flink
    stack: Stack
