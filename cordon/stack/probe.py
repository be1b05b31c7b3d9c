"""Probes: is a part ready to serve? Each answers within two seconds and never raises for one that is not."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

CONNECT_S = 0.5
ANSWER_S = 2.0
# An address in the environment must not send a probe of this machine through a proxy.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a part: how long it runs, and where in its log file it began to write."""

    running_s: float = 0.0
    log: Path = Path("/dev/null")
    log_start: int = 0


class Probe(Protocol):
    """Whether a part serves; called repeatedly until it does."""

    def ready(self, attempt: Attempt) -> bool:
        """Whether this start of the part serves now. May block for two seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Running:
    """For a part with nothing to ask: it has stayed up for a while."""

    seconds: float = 1.0

    def ready(self, attempt: Attempt) -> bool:
        """See `Probe`."""
        return attempt.running_s >= self.seconds


@dataclass(frozen=True, slots=True)
class Listening:
    """A TCP port accepts connections."""

    host: str
    port: int

    def ready(self, attempt: Attempt) -> bool:
        """See `Probe`."""
        try:
            socket.create_connection((self.host, self.port), CONNECT_S).close()
        except OSError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Answering:
    """A Redis or Valkey server answers PING, so its log is loaded."""

    host: str
    port: int

    def ready(self, attempt: Attempt) -> bool:
        """See `Probe`."""
        try:
            with socket.create_connection((self.host, self.port), CONNECT_S) as connection:
                connection.settimeout(ANSWER_S)
                connection.sendall(b"*1\r\n$4\r\nPING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Healthy:
    """An HTTP address answers 200."""

    url: str

    def ready(self, attempt: Attempt) -> bool:
        """See `Probe`."""
        return fetch(self.url) is not None


@dataclass(frozen=True, slots=True)
class Broker:
    """A Kafka broker answers requests for metadata, not only connections."""

    bootstrap: str

    def ready(self, attempt: Attempt) -> bool:
        """See `Probe`."""
        host, _, port = self.bootstrap.partition(":")
        if not Listening(host, int(port)).ready(attempt):
            return False
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        try:
            return len(client.list_topics(timeout=ANSWER_S).brokers) > 0
        except KafkaException:
            return False


@dataclass(frozen=True, slots=True)
class TaskManagers:
    """A Flink cluster has this many task managers that were heard of since the part started.

    A killed one stays listed until its job manager misses it; it does not count.
    """

    rest: str
    count: int = 1

    def ready(self, attempt: Attempt) -> bool:
        """See `Probe`."""
        answer = fetch(f"{self.rest}/taskmanagers")
        if not isinstance(answer, dict):
            return False
        started_ms = (time.time() - attempt.running_s) * 1000
        # Despite its name, the field is the time of the last heartbeat, in epoch milliseconds.
        heard = [each for each in answer["taskmanagers"] if each["timeSinceLastHeartbeat"] > started_ms]
        return len(heard) >= self.count


@dataclass(frozen=True, slots=True)
class JobsRunning:
    """At least `count` Flink jobs run, with every one of their tasks running."""

    rest: str
    count: int = 1

    def ready(self, attempt: Attempt) -> bool:
        """See `Probe`."""
        overview = fetch(f"{self.rest}/jobs/overview")
        if not isinstance(overview, dict):
            return False
        running = [job for job in overview.get("jobs", []) if job["state"] == "RUNNING"]
        return len(running) >= self.count and all(
            job["tasks"]["running"] == job["tasks"]["total"] for job in running
        )


@dataclass(frozen=True, slots=True)
class Said:
    """The part has written this text to its log since it was started."""

    text: str

    def ready(self, attempt: Attempt) -> bool:
        """See `Probe`."""
        try:
            with attempt.log.open("rb") as log:
                log.seek(attempt.log_start)
                return self.text.encode() in log.read()
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class All:
    """Every one of several probes."""

    probes: tuple[Probe, ...]

    def ready(self, attempt: Attempt) -> bool:
        """See `Probe`."""
        return all(probe.ready(attempt) for probe in self.probes)


def fetch(url: str) -> Any:
    """The JSON (or text) behind an address; None where it does not answer with success."""
    try:
        with _direct.open(url, timeout=ANSWER_S) as answer:
            body = answer.read()
    except (urllib.error.URLError, OSError):
        return None
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
