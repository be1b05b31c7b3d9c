"""The Flink jobs on a real broker, a real cluster and a real store: every state equals the one that
follows from the log, through crashes, restarts and the loss of the store."""

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from cordon.stack.part import Part
from cordon.stack.probe import Running
from cordon.stack.supervisor import Stack
from cordon.stack.valkey import Valkey
from features.catalogue import Catalogue, load
from features.library import Keys
from features.state import State
from tests.parts import ROOT, RunningFlink, RunningKafka
from tests.stream.log_world import START_MS, Record, expected_states, payments, produce

pytestmark = [pytest.mark.parts, pytest.mark.long, pytest.mark.timeout(600)]
TENANT = "demo"


@dataclass
class Installation:
    """A store of its own, topics of its own, and the jobs between them."""

    catalogue: Catalogue
    kafka: RunningKafka
    flink: RunningFlink
    topics: dict[str, str]
    store: Valkey
    stack: Stack
    log: list[Record] = field(default_factory=list)

    @property
    def client(self) -> redis.Redis:
        """A client of the store."""
        return redis.Redis(host="127.0.0.1", port=self.store.port, socket_timeout=5)

    def add(self, count: int, name: str) -> None:
        """Write more records to the log."""
        more = payments(self.catalogue, count, len(self.log) + 1, START_MS + 3_600_000 * len(self.log))
        self.log += more
        produce(self.kafka.bootstrap, self.topics, more, f"{self.topics['decisions']}-{name}")

    def jobs_said(self) -> str:
        """What the keeper has told."""
        return self.stack.log("jobs").read_text()

    def wait(self, what: str, holds: Callable[[], bool], limit_s: float = 240.0) -> None:
        """Until `holds`; fails with the keeper's log."""
        give_up_at = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < give_up_at, f"{what}: {self.jobs_said()[-3000:]}"
            time.sleep(0.2)

    def differences(self) -> dict[str, int]:
        """States that are wrong, missing and surplus in the store."""
        expected = expected_states(self.catalogue, self.log)
        keys = Keys(TENANT, self.catalogue.state_fingerprint)
        wanted = {keys.state(*at).encode(): value for at, value in expected.items()}
        with self.client as client:
            names = list(client.scan_iter("*:s:*", count=1000))
            held = dict(zip(names, client.mget(names), strict=True)) if names else {}
        return {
            "wrong": sum(held[k] != v for k, v in wanted.items() if k in held),
            "missing": len(wanted.keys() - held.keys()),
            "surplus": len(held.keys() - wanted.keys()),
        }

    def settle(self) -> None:
        """Wait until the store equals the log."""
        none = {"wrong": 0, "missing": 0, "surplus": 0}
        try:
            self.wait("states", lambda: self.differences() == none)
        except AssertionError as error:
            raise AssertionError(f"{self.differences()} {self.first_difference()}") from error

    def first_difference(self) -> str:
        """For a person: one state that is not as it should be."""
        keys = Keys(TENANT, self.catalogue.state_fingerprint)
        for (entity, pseudonym), value in expected_states(self.catalogue, self.log).items():
            held = self.client.get(keys.state(entity, pseudonym))
            assert not isinstance(held, str)
            if held != value:
                layout = self.catalogue.layouts[entity]
                return f"{entity}: {State.decode(layout, held)} instead of {State.decode(layout, value)}"
        return ""


@pytest.fixture(scope="module")
def installation(
    kafka: RunningKafka, flink: RunningFlink, ports, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """Payments, two partitions a topic, two subtasks."""
    directory = tmp_path_factory.mktemp("jobs")
    store = Valkey(directory / "data", ports.take())
    topics = {name: kafka.topic(name, partitions=2) for name in ("decisions", "events", "labels")}
    environment = {
        "CORDON_TENANT": TENANT,
        "CORDON_CATALOGUE__NAME": "payments",
        "CORDON_REDIS__URL": store.url,
        "CORDON_KAFKA__BOOTSTRAP": kafka.bootstrap,
        **{f"CORDON_KAFKA__{name.upper()}": topic for name, topic in topics.items()},
        "CORDON_KAFKA__GROUP": topics["decisions"],
        "CORDON_FLINK__REST": flink.rest,
        "CORDON_FLINK__CHECKPOINTS": (directory / "checkpoints").as_uri(),
        "CORDON_FLINK__CHECKPOINT_INTERVAL_MS": "1000",
        "CORDON_FLINK__PARALLELISM": "2",
    }
    jobs = Part(
        "jobs",
        (str(flink.python), "-m", "stream.jobs"),
        Running(),
        {**flink.environment, **environment},
        directory=ROOT,
        needs=("valkey",),
        stop_timeout_s=20.0,
    )
    with Stack([store.part(), jobs], directory) as stack:
        yield Installation(load("payments"), kafka, flink, topics, store, stack)


def test_the_store_equals_the_log(installation: Installation) -> None:
    installation.add(800, "first")
    installation.wait("ready", lambda: "ready: jobs" in installation.jobs_said())
    installation.settle()
    topics = {topic for record in installation.log for topic in [installation.topics[record.topic]]}

    def published() -> set[str]:
        with installation.client as client:
            return {k.decode() for k in client.hgetall(f"{{{TENANT}:meta}}:watermark")}

    wanted = {f"{topic}:{partition}" for topic in topics for partition in (0, 1)}
    installation.wait("positions of both subtasks", lambda: published() == wanted)


def test_what_merges_rocksdbs_files_yields_to_the_jobs(installation: Installation) -> None:
    def merging() -> set[int]:
        installation.add(30, f"merged {len(installation.log)}")
        time.sleep(1.0)
        return niceness_of(installation.flink.stack.processes("taskmanager"), "rocksdb:low")

    own = os.getpriority(os.PRIO_PROCESS, 0)
    # The fourth checkpoint's files or so are merged; only then a thread says how nice it is.
    installation.wait("a merge", lambda: 19 in merging())
    threads = niceness_of(installation.flink.stack.processes("taskmanager"), "GroupAggregate")
    assert threads == {own}
    installation.settle()


def niceness_of(pids: list[int], name: str) -> set[int]:
    """Of the threads of processes whose names begin so."""
    found = set()
    for thread in (path for pid in pids for path in Path(f"/proc/{pid}/task").iterdir()):
        try:
            _, comm, rest = re.split(r"\((.*)\) ", (thread / "stat").read_text(), maxsplit=1)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if comm.startswith(name):
            found.add(int(rest.split()[16]))
    return found


def test_a_killed_task_manager_repeats_nothing_and_loses_nothing(installation: Installation) -> None:
    installation.add(300, "before the kill")
    installation.flink.stack.kill("taskmanager")
    installation.add(300, "after the kill")
    installation.settle()


def test_a_killed_cluster_gets_its_jobs_back_from_their_checkpoints(installation: Installation) -> None:
    installation.add(100, "before the end")
    installation.settle()
    before = installation.jobs_said().count("from chk-")
    installation.flink.stack.kill("jobmanager")
    installation.flink.stack.kill("taskmanager")
    installation.add(200, "after the end")
    installation.settle()
    assert installation.jobs_said().count("from chk-") >= before + 2


def test_a_restarted_keeper_goes_on_from_the_last_checkpoint(installation: Installation) -> None:
    installation.add(100, "before the restart")
    installation.settle()
    installation.stack.restart("jobs")
    installation.add(300, "after the restart")
    installation.settle()
    assert "from chk-" in installation.jobs_said()


def test_a_lost_store_is_rebuilt_from_the_log(installation: Installation) -> None:
    installation.add(100, "before the loss")
    installation.settle()
    installation.stack.kill("valkey", hold=True)
    for file in (installation.store.directory / "appendonlydir").iterdir():
        file.unlink()
    installation.add(100, "during the loss")
    installation.stack.restart("valkey")

    def rebuilding() -> bool:
        with installation.client as client:
            return client.get(f"{{{TENANT}:meta}}:rebuilding") is not None

    installation.wait("the mark", rebuilding)
    installation.wait("the end of the rebuilding", lambda: not rebuilding())
    assert installation.differences() == {"wrong": 0, "missing": 0, "surplus": 0}
